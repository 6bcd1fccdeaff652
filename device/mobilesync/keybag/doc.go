// Package keybag makes and unlocks the keybags of MobileSync backups, and encrypts
// and decrypts the files that their keys protect.
//
// A keybag is the value BackupKeyBag of Manifest.plist: a sequence of tagged
// records (4 letters, u32 big-endian length, value) with one wrapped key per
// protection class. PBKDF2 derives a key from the password in one stage
// (HMAC-SHA1, iOS 4 to 10.1) or two (HMAC-SHA256 first, iOS 10.2 and later). That
// key unwraps the class keys (RFC 3394), a class key unwraps the 32-byte key of a
// file or of Manifest.db, and that key decrypts the content: AES-256-CBC, zero IV,
// PKCS#7. Encryption is deterministic: the same plaintext and key give the same
// bytes.
//
// No input makes the package panic or allocate without limit. The package limits
// the rounds of a derivation, and a long derivation can be cancelled. No error or
// printed value contains a password or key. The package does not read or write
// files, log, or parse property lists or databases.
package keybag
