//go:build !unix

package wire

// canPeek tells whether idle connections can be looked at. Where they cannot, every request goes to the other transport.
const canPeek = false

func nothingToRead(uintptr) bool { return false }
