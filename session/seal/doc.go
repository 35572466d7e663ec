// Package seal encrypts and authenticates what Postern hands to browsers and stores, under keys that can be rotated.
//
// A [Ring] holds the keys of the configuration: the first seals, every one opens. Each use names a purpose, a constant of the
// program such as "session" or "attempt", and has keys of its own derived from it: what was sealed for one purpose opens for no
// other. [Ring.Seal] makes text for cookies and URLs that carries its age. [Ring.SealBytes] makes bytes for a store, bound to the
// place where they lie. [Ring.MAC] names things so that only a holder of the keys can tell the name. [Encrypt] and [Decrypt] work
// under a key that is not ours but a session's own.
//
// Everything here is authenticated encryption: a single changed, added or missing bit is [ErrInvalid], whatever the reason, so that
// an attacker learns nothing from it. No error and no formatting verb shows a key or a plaintext.
package seal
