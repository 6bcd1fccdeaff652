package s3

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// failure returns the error of an operation: "op address: reason (what to do)". The
// reasons have their own advice.
func failure(op, address string, err error) error {
	return fmt.Errorf("%s %s: %w", op, address, err)
}

// answerError is an error that a store has sent. Its text is for people. The errors that it
// wraps say what it means for callers.
type answerError struct {
	text string
	code string // of the protocol
	// region is the right one, if the store says that the request was for another one.
	region string
	is     []error
}

func (e *answerError) Error() string   { return e.text }
func (e *answerError) Unwrap() []error { return e.is }

// code returns the protocol's code of an error; "" if it was not sent by a store.
func code(err error) string {
	if e, ok := errors.AsType[*answerError](err); ok {
		return e.code
	}
	return ""
}

// rightRegion returns the region that a store named when it refused a request for another.
func rightRegion(err error) string {
	if e, ok := errors.AsType[*answerError](err); ok {
		return e.region
	}
	return ""
}

// meaning is what a code of the protocol means.
type meaning struct {
	is   []error
	text string // "" to quote the store
	// passes says that the request may succeed later.
	passes bool
}

// Advice for people.
const (
	adviceRights = "give the access key the rights to list the bucket, and to read, write and delete its objects"
	adviceKeys   = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
)

// meanings are the codes that stores send. Servers invent codes freely, so the status of
// HTTP decides about all others; see meaningOf.
var meanings = map[string]meaning{
	minio.NoSuchKey:          {is: []error{backend.ErrNotExist}},
	minio.PreconditionFailed: {is: []error{backend.ErrExist}},
	minio.NoSuchBucket:       {is: []error{ErrNoBucket, backend.ErrOutOfReach}, text: ErrNoBucket.Error() + " (check its name, or make it first)"},

	// Posix file systems behind the store: "a" is a file, and "a/b" cannot be one.
	"ObjectParentIsFile":            {is: []error{backend.ErrNotFolder}},
	"ExistingObjectIsDirectory":     {is: []error{backend.ErrExist}},
	"XMinioParentIsObject":          {is: []error{backend.ErrNotFolder}},
	"XMinioObjectExistsAsDirectory": {is: []error{backend.ErrExist}},

	minio.AccessDenied:  {is: []error{fs.ErrPermission}, text: "access denied (" + adviceRights + ")"},
	"AllAccessDisabled": {is: []error{fs.ErrPermission, backend.ErrOutOfReach}},
	"AccountProblem":    {is: []error{fs.ErrPermission, backend.ErrOutOfReach}},

	"InvalidAccessKeyId":    {is: []error{ErrRefused, backend.ErrOutOfReach}, text: "the store does not know this access key (" + adviceKeys + ")"},
	"SignatureDoesNotMatch": {is: []error{ErrRefused, backend.ErrOutOfReach}, text: "the secret of the access key is wrong (" + adviceKeys + ")"},
	"XAdminUserNotFound":    {is: []error{ErrRefused, backend.ErrOutOfReach}, text: "the store does not know this access key (" + adviceKeys + ")"},
	"InvalidToken":          {is: []error{ErrRefused, backend.ErrOutOfReach}, text: "the session of the access key is not valid (check AWS_SESSION_TOKEN, or log in again)"},
	"ExpiredToken":          {is: []error{ErrRefused, backend.ErrOutOfReach}, text: "the session of the access key has expired (log in again)"},
	"RequestTimeTooSkewed": {
		is:   []error{ErrRefused, backend.ErrOutOfReach},
		text: "the clock of this computer is wrong: it differs from that of the store by more than 15 minutes (set the clock)",
	},
	"AuthorizationHeaderMalformed":       {is: []error{ErrRefused, backend.ErrOutOfReach}},
	"IllegalLocationConstraintException": {is: []error{ErrRefused, backend.ErrOutOfReach}},
	minio.InvalidRegion:                  {is: []error{ErrRefused, backend.ErrOutOfReach}},
	"PermanentRedirect":                  {is: []error{ErrRefused, backend.ErrOutOfReach}},

	"QuotaExceeded":                  {is: []error{backend.ErrNoSpace}},
	"BucketQuotaExceeded":            {is: []error{backend.ErrNoSpace}},
	"UserQuotaExceeded":              {is: []error{backend.ErrNoSpace}},
	"StorageQuotaExceeded":           {is: []error{backend.ErrNoSpace}},
	"InsufficientStorage":            {is: []error{backend.ErrNoSpace}},
	"XMinioStorageFull":              {is: []error{backend.ErrNoSpace}},
	"XMinioAdminBucketQuotaExceeded": {is: []error{backend.ErrNoSpace}},
	"XMinioAdminNoSpaceLeft":         {is: []error{backend.ErrNoSpace}},
	"ServiceQuotaExceededException":  {is: []error{backend.ErrNoSpace}},
	"InvalidStorageClass":            {text: "the store does not have this storage class for packs"},
	"InvalidObjectState":             {is: []error{backend.ErrOutOfReach}, text: "the object is in an archive and cannot be read at once (restore it with the tools of the store)"},
	minio.NotImplemented:             {is: []error{errors.ErrUnsupported}},
	"BadDigest":                      {passes: true, text: "bytes changed on the way, and the store has refused them"},
	"XAmzContentSHA256Mismatch":      {passes: true, text: "bytes changed on the way, and the store has refused them"},
	"IncompleteBody":                 {passes: true, text: "bytes were lost on the way, and the store has refused the rest"},
	"RequestTimeout":                 {passes: true, is: []error{backend.ErrOutOfReach}, text: "the store has waited too long for the bytes of a request"},
	"SlowDown":                       {passes: true, is: []error{backend.ErrOutOfReach}},
	"SlowDownRead":                   {passes: true, is: []error{backend.ErrOutOfReach}},
	"SlowDownWrite":                  {passes: true, is: []error{backend.ErrOutOfReach}},
	"RequestLimitExceeded":           {passes: true, is: []error{backend.ErrOutOfReach}},
	"Throttling":                     {passes: true, is: []error{backend.ErrOutOfReach}},
	"ThrottlingException":            {passes: true, is: []error{backend.ErrOutOfReach}},
	"RequestThrottled":               {passes: true, is: []error{backend.ErrOutOfReach}},
	"ServiceUnavailable":             {passes: true, is: []error{backend.ErrOutOfReach}},
	"XMinioServerNotInitialized":     {passes: true, is: []error{backend.ErrOutOfReach}},
	"ConditionalRequestConflict":     {passes: true},
	"OperationAborted":               {passes: true},
	"InternalError":                  {passes: true},
}

// meaningOf returns the meaning of an answer.
func meaningOf(code string, status int) meaning {
	if m, ok := meanings[code]; ok {
		return m
	}
	switch status {
	case http.StatusForbidden:
		return meanings[minio.AccessDenied]
	case http.StatusUnauthorized:
		return meaning{is: []error{ErrRefused, backend.ErrOutOfReach}}
	case http.StatusPreconditionFailed:
		return meanings[minio.PreconditionFailed]
	case http.StatusNotImplemented:
		return meanings[minio.NotImplemented]
	case http.StatusInsufficientStorage:
		return meaning{is: []error{backend.ErrNoSpace}}
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return meanings["PermanentRedirect"]
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return meaning{passes: true, is: []error{backend.ErrOutOfReach}}
	}
	if status == 499 || status >= 500 && status != http.StatusNotImplemented {
		return meaning{passes: true}
	}
	return meaning{}
}

// classify returns what an error of the client means.
func (b *Backend) classify(err error, seen *exchange) error {
	if seen.lost != nil {
		return wire.ConnectionError(seen.lost)
	}
	answer, ok := errors.AsType[minio.ErrorResponse](err)
	switch {
	case errors.Is(err, errLongListing):
		return err
	case errors.Is(err, errNoListing):
		return &backend.TemporaryError{Err: &answerError{text: errNoListing.Error(), is: []error{backend.ErrOutOfReach}}}
	case !ok && (errors.Is(err, io.ErrUnexpectedEOF) || wire.IsNetwork(err)):
		return wire.ConnectionError(err) // in the middle of an answer
	case !ok:
		return err
	}
	m := meaningOf(answer.Code, answer.StatusCode)
	e := &answerError{text: m.text, code: answer.Code, is: m.is}
	if answer.Code == "AuthorizationHeaderMalformed" || answer.Code == minio.InvalidRegion || answer.StatusCode == http.StatusMovedPermanently {
		e.region = answer.Region
	}
	if e.text == "" {
		e.text = quote(answer, m)
	}
	if !m.passes {
		return e
	}
	return &backend.TemporaryError{Err: e, After: seen.after}
}

// quote returns what a store has said. Callers know the text of errors of package backend,
// so it comes first.
func quote(answer minio.ErrorResponse, m meaning) string {
	if answer.Region != "" && len(m.is) > 0 && errors.Is(m.is[0], ErrRefused) {
		return fmt.Sprintf("the bucket is in the region %.40s (set AWS_REGION=%.40s, or use the host of that region)", answer.Region, answer.Region)
	}
	said := strings.TrimRight(strings.TrimSpace(wire.Clean(answer.Message)), ".")
	if answer.Code != "" && answer.Code != said {
		said += " (" + wire.Clean(answer.Code) + ")"
	}
	switch {
	case m.passes:
		return fmt.Sprintf("the store cannot answer now: %d %s", answer.StatusCode, said)
	case len(m.is) == 0:
		return fmt.Sprintf("the store says: %d %s", answer.StatusCode, said)
	case errors.Is(m.is[0], backend.ErrNotExist), errors.Is(m.is[0], backend.ErrExist):
		return m.is[0].Error()
	case errors.Is(m.is[0], backend.ErrNoSpace):
		return m.is[0].Error() + ": " + said + " (remove something there, or raise the quota)"
	}
	return m.is[0].Error() + ": " + said
}
