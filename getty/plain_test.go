// SPDX-License-Identifier: Apache-2.0

//go:build !race && !bytespooldebug

package getty_test

// instrumented says that this build allocates for checks of its own.
const instrumented = false
