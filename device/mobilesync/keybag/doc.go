// Package keybag opens and makes the keybags of MobileSync backups, and seals and opens the files that their keys protect.
//
// A keybag is the value BackupKeyBag of Manifest.plist: a run of tagged records (4 letters, u32 big-endian length, value)
// that holds one wrapped key per protection class. A password turns into a key-encryption key by one PBKDF2 stage (HMAC-SHA1,
// iOS 4 to 10.1) or two (HMAC-SHA256 first, iOS 10.2 and later); that key unwraps the class keys (RFC 3394); a class key
// unwraps the 32-byte key of a file or of Manifest.db; and that one opens the content: AES-256-CBC, zero IV, PKCS#7. All of
// it is deterministic once the keys are drawn, so sealing the same plaintext under the same key gives the same bytes.
//
// The package promises: no input makes it panic or allocate without bound; round counts of a foreign bag are capped; a long
// derivation can be cancelled; no error and no String of it contains a password or a key. It never reads or writes files,
// never logs, and never parses property lists or databases.
package keybag
