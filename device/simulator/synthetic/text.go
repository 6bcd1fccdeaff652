package synthetic

import (
	"strings"
	"sync"
)

// lexicon holds the words of which texts consist. Few words are frequent and many are
// rare, so that the texts compress like written language.
type lexicon struct{ words []string }

const commonWords = `the to and a of i in you is it for that on was have be at me my so we with but this are not what do just up can out
if your like when all get will no go know he one she they been how would time from about had good there think her his well see
today tomorrow tonight work home back want need really come day then now great more some him make over later still going right us
thanks did sure who too here because them after off could dinner train week morning photo call school meeting late soon love
please maybe again night where take first yes next their before way lol ok hello hi weekend birthday happy sorry wait minutes`

var (
	onsets = strings.Fields("b br c ch d dr f fl g gr h j k l m n p pl pr r s sh st t tr v w")
	vowels = strings.Fields("a e i o u ai ea ee io ou")
	codas  = strings.Fields("n r s t l m nd rt st ck ng x d")
)

// newLexicon returns the lexicon, which is the same for every seed.
var newLexicon = sync.OnceValue(func() *lexicon {
	l := &lexicon{words: strings.Fields(commonWords)}
	s := newStream(0, "lexicon")
	for len(l.words) < 3000 {
		var w strings.Builder
		for range s.between(1, 4) {
			w.WriteString(pick(s, onsets))
			w.WriteString(pick(s, vowels))
		}
		w.WriteString(pick(s, codas))
		l.words = append(l.words, w.String())
	}
	return l
})

func (l *lexicon) word(s stream) string { return l.words[s.skewed(0, s.between(1, len(l.words)))] }

// rareWord returns a word for a name. Such words are rare in sentences.
func (l *lexicon) rareWord(s stream) string { return l.words[s.between(len(l.words)/10, len(l.words))] }

func (l *lexicon) name(s stream) string {
	w := l.rareWord(s)
	return strings.ToUpper(w[:1]) + w[1:]
}

var endings = []string{".", ".", "!", "?", "", "", " 😀", " ❤️", "…"}

func (l *lexicon) sentence(s stream, words int) string {
	var b strings.Builder
	for i := range words {
		w := l.word(s)
		if i == 0 {
			w = strings.ToUpper(w[:1]) + w[1:]
		} else {
			b.WriteByte(' ')
		}
		b.WriteString(w)
	}
	b.WriteString(pick(s, endings))
	return b.String()
}

func (l *lexicon) paragraph(s stream, sentences int) string {
	parts := make([]string, sentences)
	for i := range parts {
		parts[i] = l.sentence(s, s.between(4, 18))
	}
	return strings.Join(parts, " ")
}
