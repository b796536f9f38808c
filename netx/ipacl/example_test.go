// SPDX-License-Identifier: Apache-2.0

package ipacl_test

import (
	"fmt"
	"net/netip"

	"github.com/gostkit/kit/netx/ipacl"
)

func ExampleACL() {
	acl, err := ipacl.Parse([]string{"10.0.0.0/8", "192.168.1-61.*"}, []string{"10.0.13.0/24"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range []string{"10.1.2.3", "10.0.13.9", "192.168.61.5", "192.168.62.5"} {
		fmt.Println(s, acl.Allows(netip.MustParseAddr(s)))
	}
	// Output:
	// 10.1.2.3 true
	// 10.0.13.9 false
	// 192.168.61.5 true
	// 192.168.62.5 false
}

func ExampleMatch() {
	fmt.Println(ipacl.Match("10.*.0.1", "10.5.99.1"))
	_, err := ipacl.Match("10.*.00.1", "10.5.0.1")
	fmt.Println(err)
	// Output:
	// false <nil>
	// invalid IP pattern: 10.*.00.1
}
