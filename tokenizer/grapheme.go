package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// Clusters of characters that are seen as one (UAX 29, extended grapheme
// clusters, version 17), as far as they may be short: the rules for Hangul
// syllables, emoji sequences, flags and Indic conjuncts join only characters of
// three bytes and more, so that such clusters are longer than any that
// Precompiled looks at as a whole. They may come out in parts here.

// clusterEnd returns the end of the cluster that begins at s[i].
func clusterEnd(s string, i int) int {
	r, n := utf8.DecodeRuneInString(s[i:])
	end := i + n
	if r == '\r' && end < len(s) && s[end] == '\n' { // GB3
		return end + 1
	}
	prepended := isPrepend(r)
	if !prepended && isClusterControl(r) { // GB4
		return end
	}
	for end < len(s) {
		if s[end] < utf8.RuneSelf && !prepended {
			return end // no ASCII character extends a cluster
		}
		r, n = utf8.DecodeRuneInString(s[end:])
		switch {
		case isExtend(r): // GB9, GB9a
			prepended = false
		case !prepended || isClusterControl(r): // GB5, GB999
			return end
		default: // GB9b
			prepended = isPrepend(r)
		}
		end += n
	}
	return end
}

// isExtend says whether r belongs to the cluster before it: Extend, SpacingMark
// and ZWJ of UAX 29.
func isExtend(r rune) bool {
	switch {
	case r < 0x300:
		return false
	case r == 0x200C, r == 0x200D, r == 0x0E33, r == 0x0EB3, r >= 0x1F3FB && r <= 0x1F3FF:
		return true
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Other_Grapheme_Extend, newerMarks):
		return true
	}
	return unicode.Is(unicode.Mc, r) && !unicode.Is(notSpacingMark, r)
}

// newerMarks has the marks of at most three bytes that Unicode 16 and 17 added.
var newerMarks = &unicode.RangeTable{R16: []unicode.Range16{{0x897, 0x897, 1}, {0x1ACF, 0x1ADD, 1}, {0x1AE0, 0x1AEB, 1}}}

// notSpacingMark has the characters of Mc that UAX 29 excepts from SpacingMark.
var notSpacingMark = &unicode.RangeTable{R16: []unicode.Range16{
	{0x102B, 0x102C, 1}, {0x1038, 0x1038, 1}, {0x1062, 0x1064, 1}, {0x1067, 0x106D, 1}, {0x1083, 0x1083, 1},
	{0x1087, 0x108C, 1}, {0x108F, 0x108F, 1}, {0x109A, 0x109C, 1}, {0x1A61, 0x1A61, 1}, {0x1A63, 0x1A64, 1},
	{0xAA7B, 0xAA7B, 1}, {0xAA7D, 0xAA7D, 1},
}, R32: []unicode.Range32{{0x11720, 0x11721, 1}}}

// isPrepend says whether r belongs to the cluster after it.
func isPrepend(r rune) bool {
	return r >= 0x600 && (unicode.Is(unicode.Prepended_Concatenation_Mark, r) || unicode.Is(indicPrepend, r))
}

// indicPrepend has the characters with Indic_Syllabic_Category
// Consonant_Preceding_Repha or Consonant_Prefixed.
var indicPrepend = &unicode.RangeTable{R16: []unicode.Range16{{0x0D4E, 0x0D4E, 1}}, R32: []unicode.Range32{
	{0x111C2, 0x111C3, 1}, {0x1193F, 0x1193F, 1}, {0x11941, 0x11941, 1}, {0x11A3A, 0x11A3A, 1}, {0x11A84, 0x11A89, 1},
	{0x11D46, 0x11D46, 1}, {0x11F02, 0x11F02, 1},
}}

// isClusterControl says whether r stands alone: Control of UAX 29.
func isClusterControl(r rune) bool {
	switch {
	case r < 0x7F:
		return r < 0x20
	case r < 0xAD:
		return r < 0xA0
	case r == 0x200C, r == 0x200D:
		return false
	case unicode.In(r, unicode.Zl, unicode.Zp, unicode.Cc, unicode.Cf):
		return !unicode.In(r, unicode.Prepended_Concatenation_Mark, unicode.Other_Grapheme_Extend)
	}
	// Code points without a character that are to be ignored by default.
	return unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && !unicode.In(r, unicode.L, unicode.M)
}
