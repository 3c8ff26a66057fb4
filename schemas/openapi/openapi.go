// Package openapi holds the OpenAPI document of the services' JSON form, which
// `make proto` generates.
package openapi

import _ "embed"

// Document is OpenAPI 2.0 in JSON. It must not be changed.
//
//go:embed starling.swagger.json
var Document []byte
