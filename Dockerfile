# The image of Postern: one static program, CA certificates, nobody's user, nothing else.
#
#   docker build --build-arg VERSION=1.2.3 -t postern .
#   docker run --read-only --cap-drop=ALL --security-opt=no-new-privileges -p 4180:4180 \
#     -v ./postern.yaml:/etc/postern/postern.yaml:ro postern
#
# Built whole and run so far with buildah 1.28 (chroot isolation, no registry), from a stand-in for GO_IMAGE: Go 1.27, a busybox shell and
# CA certificates. `postern version`, serving as user 65532, and `postern health` with and without a server were tried in it. Not tried:
# the golang image itself, Docker's own engine and its timer for HEALTHCHECK (which OCI images leave out: buildah needs --format docker),
# other architectures.
#
# The file must say `server: {listen: ":4180"}`: the default, 127.0.0.1, cannot be reached from outside the container.

# Another image with Go 1.21 or newer, a shell and CA certificates serves as well.
ARG GO_IMAGE=golang:1.27

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
# The golang images say "local"; go.mod names the toolchain that is wanted.
ENV GOTOOLCHAIN=auto
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG TARGETVARIANT
ARG VERSION=unknown
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOARM=${TARGETVARIANT#v} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/postern ./cmd/postern
# What the program consists of, and the licences of its parts.
RUN go run -modfile=.ci/tools.mod ./.ci/sbom /out/postern /out/sbom

FROM scratch
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Postern" \
      org.opencontainers.image.description="Authenticating reverse proxy for web applications that know nothing of OAuth" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      postern.sbom="/sbom/postern.cdx.json" \
      postern.licenses="/LICENSE /sbom/THIRD_PARTY_LICENSES"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE /LICENSE
COPY --from=build /out/sbom /sbom
COPY --from=build /out/postern /postern
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
# Read by `postern health`, too: name another file here rather than by --config.
ENV POSTERN_CONFIG=/etc/postern/postern.yaml
# 9090 is the admin listener. It is on 127.0.0.1 unless the file says otherwise, where the health check finds it.
EXPOSE 4180 9090
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s --retries=3 CMD ["/postern", "health"]
ENTRYPOINT ["/postern"]
