// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package taskpool_test

// purego says that hash/maphash is built without assembly too, where its Comparable allocates.
const purego = false
