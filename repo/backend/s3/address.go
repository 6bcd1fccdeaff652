package s3

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/snap-backup/snap/repo/backend/wire"
)

// Config says where a store is. [Parse] makes it.
type Config struct {
	Host   string // host name or IP address, in lower case, and the port if one was given
	Bucket string
	Prefix string // of all keys, without a slash at either end; "" for the whole bucket
	HTTP   bool   // without TLS

	address string // as typed
}

// String returns the address as it was typed. It never has secrets.
func (c Config) String() string { return c.address }

// maxPrefix is the maximum length of a prefix: a key has at most 1024 bytes, and the name
// of a file at most 200.
const maxPrefix = 800

// Parse returns what an address means. These are the forms:
//
//	s3:https://HOST[:PORT]/BUCKET[/PREFIX]
//	s3:http://HOST[:PORT]/BUCKET[/PREFIX]
//	s3:HOST[:PORT]/BUCKET[/PREFIX]            with https, such as
//	s3:s3.REGION.amazonaws.com/BUCKET[/PREFIX]
//
// An address with a user, a password or a query is refused, and the error does not repeat
// it: it may have a secret. An address is taken literally: "%" is refused, since some
// programs would decode it.
func Parse(address string) (Config, error) {
	c := Config{address: address}
	rest, ok := strings.CutPrefix(address, "s3:")
	if !ok {
		return Config{}, errors.New("the address of an object store begins with s3: (write s3:https://HOST/BUCKET)")
	}
	// Everything that may be a secret comes first, so that no other error quotes it.
	if strings.ContainsAny(rest, "@?#") {
		return Config{}, errors.New("an address of an object store has no keys, passwords or options, and no @, ? or # " +
			"(set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and write s3:https://HOST/BUCKET)")
	}
	switch scheme, after, found := strings.Cut(rest, "://"); {
	case !found:
		if strings.HasPrefix(rest, "/") {
			return Config{}, refuse(address, "it is not clear whether the first part is the host or the bucket", "write s3:https://HOST/BUCKET")
		}
	case strings.EqualFold(scheme, "https"):
		rest = after
	case strings.EqualFold(scheme, "http"):
		rest, c.HTTP = after, true
	default:
		return Config{}, refuse(address, "the protocol is neither https nor http", "write s3:https://HOST/BUCKET")
	}
	host, path, _ := strings.Cut(rest, "/")
	bucket, prefix, _ := strings.Cut(path, "/")
	c.Host, c.Bucket, c.Prefix = strings.ToLower(host), bucket, strings.TrimRight(prefix, "/")
	if why := wire.HostFault(c.Host); why != "" {
		return Config{}, refuse(address, why, "write s3:https://HOST/BUCKET")
	}
	if why := bucketFault(c.Bucket); why != "" {
		return Config{}, refuse(address, why, "write s3:https://HOST/BUCKET")
	}
	if why := prefixFault(c.Prefix); why != "" {
		return Config{}, refuse(address, why, "write s3:https://HOST/BUCKET/PREFIX")
	}
	return c, nil
}

func refuse(address, why, hint string) error {
	return fmt.Errorf("%.200q is not the address of an object store: %s (%s)", address, why, hint)
}

// bucketFault says what is wrong with the name of a bucket; "" if nothing. Servers have
// more rules, which differ.
func bucketFault(bucket string) string {
	switch {
	case bucket == "":
		return "it has no bucket"
	case len(bucket) < 3 || len(bucket) > 63:
		return "the name of a bucket has 3 to 63 characters"
	case strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != "":
		return "the name of a bucket has only letters, digits, dots, hyphens and underscores"
	case strings.Trim(bucket[:1]+bucket[len(bucket)-1:], ".-_") != bucket[:1]+bucket[len(bucket)-1:], strings.Contains(bucket, ".."):
		return "the name of a bucket begins and ends with a letter or digit, and has no two dots in a row"
	}
	return ""
}

// prefixFault says what is wrong with a prefix; "" if nothing.
func prefixFault(prefix string) string {
	switch {
	case prefix == "":
		return ""
	case len(prefix) > maxPrefix:
		return fmt.Sprintf("the part after the bucket is longer than %d bytes", maxPrefix)
	case !utf8.ValidString(prefix):
		return "the part after the bucket is not UTF-8"
	case strings.ContainsFunc(prefix, func(r rune) bool { return unicode.IsControl(r) || r == '%' || r == '\\' }):
		return "the part after the bucket has a control character, % or \\"
	}
	for element := range strings.SplitSeq(prefix, "/") {
		if element == "" || element == "." || element == ".." {
			return "the part after the bucket has two slashes in a row, . or .."
		}
		if strings.TrimSpace(element) != element {
			return "a part after the bucket begins or ends with a space"
		}
	}
	return ""
}
