// SPDX-License-Identifier: Apache-2.0

// Package bench holds the file that names what this project's numbers are measured against.
//
// The comparison itself is the command cmd/compare; the module stands outside the workspace, so
// that the versions its peers need never reach the libraries.
package bench

import _ "embed"

// Targets is the checked-in file of targets, as internal/harness reads it.
//
//go:embed targets.json
var Targets []byte
