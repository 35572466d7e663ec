package config

import _ "embed"

// schema is made by the test TestSchema, from the types of this package, their tags and their comments.
//
//go:embed schema.json
var schema string

// Schema is the JSON Schema (draft 2020-12) of a configuration file, for editors. It knows keys, forms and words; what one value alone
// cannot tell, [Load] checks.
func Schema() string { return schema }
