// Package restapi has the names that a REST client and server of repositories share. The
// protocol is that of restic's REST server, version 2, with the names of snap's files and two
// additions: a listing of ranges, and times. docs/rest.md describes it.
package restapi

import "time"

// MediaType is the type of a listing, in Accept and Content-Type.
const MediaType = "application/vnd.snap.rest.v1+json"

// The headers that are not those of HTTP.
const (
	// Version is in each answer of a server. Its value begins with "1".
	Version = "Snap-Rest"
	// Modified is when a file was put, by the clock of the server, as RFC 3339 with
	// nanoseconds. It is in the answer to HEAD and GET of a file.
	Modified = "Snap-Modified"
	// SHA256 is the SHA-256 of the body of a POST, in hex. The server stores nothing if the
	// body has another. In the answer, it is the SHA-256 of what the server has stored.
	SHA256 = "Snap-Sha256"
	// Reason says in one word why a server refused a request, see the constants below.
	Reason = "Snap-Reason"
	// AppendOnly is "true" in answers of a server that does not let this user remove or
	// replace files, except locks and records of interrupted runs.
	AppendOnly = "Snap-Append-Only"
	// Free is how many bytes can still be put, in the answer to HEAD of a repository.
	// It is absent if the server does not know.
	Free = "Snap-Free"
)

// The reasons for refusals.
const (
	ReasonAppendOnly = "append-only" // 403: this user may not remove this file
	ReasonQuota      = "quota"       // 507: the user's quota is used up
	ReasonFull       = "full"        // 507: the store of the server is full
	ReasonExists     = "exists"      // 409: a file has this name
	ReasonNotFolder  = "not-folder"  // 409: something else has the name of a folder
	ReasonNotRegular = "not-regular" // 409: something that is no file has the name
	ReasonName       = "name"        // 400: the name is not valid
	ReasonChecksum   = "checksum"    // 400: the body has another SHA-256
	ReasonNoFolder   = "no-folder"   // 404: the repository's folder does not exist
	ReasonNoFile     = "no-file"     // 404: the file does not exist
)

// Entry is one file of a listing. A listing is a JSON array of entries, sorted by name in
// byte order. It ends with "]": an answer without it is not complete.
type Entry struct {
	Name     string    `json:"name"` // the full name, such as "index/0123…"
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified,omitzero"`
}
