// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package taskpool

import (
	"errors"
	"time"
)

// cpuTime is not known here.
func cpuTime() (time.Duration, error) { return 0, errors.ErrUnsupported }
