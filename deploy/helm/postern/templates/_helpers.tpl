{{- define "postern.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Room is left for "-dashboard", the longest suffix. */}}
{{- define "postern.fullname" -}}
{{- $name := include "postern.name" . -}}
{{- $fallback := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $fallback | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "postern.selector" -}}
app.kubernetes.io/name: {{ include "postern.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Only Postern's pods have the component, so that nothing selects the pod of `helm test`. */}}
{{- define "postern.podSelector" -}}
{{ include "postern.selector" . }}
app.kubernetes.io/component: proxy
{{- end -}}

{{- define "postern.labels" -}}
{{ include "postern.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "postern.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "postern.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "postern.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "postern.secret" -}}
{{- .Values.existingSecret | default (ternary (include "postern.fullname" .) "" (gt (len .Values.secretFiles) 0)) -}}
{{- end -}}

{{/* What the chart must know of `config`: ports, and how long stopping takes. As YAML, for fromYaml. */}}
{{- define "postern.facts" -}}
{{- $config := fromYaml .Values.config -}}
{{- if hasKey $config "Error" -}}
{{- fail (printf "config is not YAML: %s" $config.Error) -}}
{{- end -}}
{{- $server := $config.server | default dict -}}
{{- $admin := $server.admin | default dict -}}
listen: {{ include "postern.port" (list "server.listen" $server.listen ":4180") }}
admin: {{ include "postern.port" (list "server.admin_listen" $server.admin_listen ":9090") }}
adminScheme: {{ ternary "HTTPS" "HTTP" (or (hasKey $admin "tls") (hasKey $admin "client_ca")) }}
stopping: {{ add (include "postern.seconds" ($server.drain_delay | default "0s")) (include "postern.seconds" ($server.shutdown_timeout | default "20s")) }}
{{- end -}}

{{/* The port of an address that other pods can reach. */}}
{{- define "postern.port" -}}
{{- $name := index . 0 -}}
{{- $address := index . 1 | default "" | toString -}}
{{- if not (regexMatch "^(0\\.0\\.0\\.0|\\[::\\])?:[1-9][0-9]*$" $address) -}}
{{- fail (printf "config: %s is %q, which other pods and the kubelet cannot reach; write %s: %q" $name $address $name (index . 2)) -}}
{{- end -}}
{{- regexFind "[0-9]+$" $address -}}
{{- end -}}

{{/* The whole seconds of a duration such as 1m30s. */}}
{{- define "postern.seconds" -}}
{{- $duration := toString . -}}
{{- if not (regexMatch "^([0-9]+(h|m|s))+$" $duration) -}}
{{- fail (printf "config: the chart adds server.drain_delay and server.shutdown_timeout up, and cannot read %q; write whole seconds, such as 20s" $duration) -}}
{{- end -}}
{{- $seconds := 0 -}}
{{- range regexFindAll "[0-9]+(h|m|s)" $duration -1 -}}
{{- $unit := get (dict "h" 3600 "m" 60 "s" 1) (regexFind "[hms]" .) -}}
{{- $seconds = add $seconds (mul (regexFind "[0-9]+" . | int) $unit) -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{/* Nine tenths of a memory limit in Gi, Mi or Ki, for GOMEMLIMIT; nothing for other units. */}}
{{- define "postern.goMemLimit" -}}
{{- $limit := toString . -}}
{{- if regexMatch "^[1-9][0-9]*(Gi|Mi|Ki)$" $limit -}}
{{- $kib := get (dict "Gi" 1048576 "Mi" 1024 "Ki" 1) (regexFind "[GMK]i" $limit) -}}
{{- div (mul (regexFind "[0-9]+" $limit | int) $kib 9) 10 }}KiB
{{- end -}}
{{- end -}}

{{/* Something where a value is written as it is, whatever type YAML gives it, and not as ${NAME}. */}}
{{- define "postern.isPlain" -}}
{{- if not (or (kindIs "map" .value) (kindIs "invalid" .value)) -}}
{{- $text := toString .value -}}
{{- if and $text (not (regexMatch "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$" $text)) -}}
yes
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A ConfigMap can be read by far more people and programs than a Secret. */}}
{{- define "postern.refuseSecrets" -}}
{{- $config := fromYaml .Values.config -}}
{{- $server := $config.server | default dict -}}
{{- $session := $config.session | default dict -}}
{{- $redis := ($session.store | default dict).redis | default dict -}}
{{- $secrets := dict "server.admin.token" ($server.admin | default dict).token "session.store.redis.password" $redis.password -}}
{{- $texts := dict -}}{{/* those that can be in no file */}}
{{- $_ := set $secrets "session.store.redis.sentinel.password" ($redis.sentinel | default dict).password -}}
{{- range $i, $key := $session.keys -}}
{{- $_ := set $secrets (printf "session.keys[%d]" $i) $key -}}
{{- end -}}
{{- range $i, $key := $server.assertion_keys -}}
{{- $_ := set $secrets (printf "server.assertion_keys[%d]" $i) $key -}}
{{- end -}}
{{- range $name, $provider := $config.providers -}}
{{- $provider := $provider | default dict -}}
{{- range $key := list "client_secret" "client_key" -}}
{{- $_ := set $secrets (printf "providers.%s.%s" $name $key) (get $provider $key) -}}
{{- end -}}
{{- range $key, $value := $provider.token_params -}}
{{- $_ := set $texts (printf "providers.%s.token_params.%s" $name $key) $value -}}
{{- end -}}
{{- end -}}
{{- $url := toString ($redis.url | default "") -}}
{{- $login := regexFind "(?s)^([^:/]*:)?//[^:@/]*:.*@" $url -}}
{{- $_ := set $texts "session.store.redis.url: a password" (regexReplaceAll "(?s)^([^:/]*:)?//[^:@/]*:(.*)@$" $login "${2}") -}}
{{- range $name, $value := $secrets -}}
{{- if include "postern.isPlain" (dict "value" $value) -}}
{{- fail (printf "config: %s stands in it, and everyone who may read ConfigMaps could read it; write {file: /run/secrets/postern/NAME}" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $texts -}}
{{- if include "postern.isPlain" (dict "value" $value) -}}
{{- fail (printf "config: %s stands in it, and everyone who may read ConfigMaps could read it; write ${NAME}, and NAME in env or envFrom" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
