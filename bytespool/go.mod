module github.com/gostkit/kit/bytespool

go 1.25.0

require github.com/stretchr/testify v1.12.1
