// SPDX-License-Identifier: Apache-2.0

// Package ipacl decides by IP address: patterns such as 10.0.0.0/8 or 10.*.1-9.7, and lists of them
// that allow and deny.
//
// Do not use it as a firewall: a decision here comes after the kernel has accepted the connection.
// For prefixes alone, [netip.Prefix.Contains] does; for many thousands of them a radix tree is
// faster, since an [ACL] looks at its patterns one by one.
//
//	acl, err := ipacl.Parse([]string{"10.0.0.0/8", "192.168.1-61.*"}, []string{"10.0.13.0/24"})
//	if err != nil {
//		return err // a text that can be read in two ways, such as 10.*.00.1, is refused
//	}
//	if !acl.AllowsAddr(conn.RemoteAddr()) {
//		conn.Close()
//	}
//
// The zero [Pattern] matches no address; the zero [ACL] allows every valid one. Both are only read
// once they are made, so they may be shared. A decision does not allocate and takes time linear in
// the number of patterns.
package ipacl
