// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netx

import "errors"

func unshareNet() error { return errors.ErrUnsupported }

func twinSystem() *system { return nil }

func noBacklog(uintptr) error { return errors.ErrUnsupported }
