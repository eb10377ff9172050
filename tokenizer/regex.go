package tokenizer

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"unicode/utf8"
)

// Regular expressions, matched as a backtracking engine would match them (of the
// alternatives the first that leads to a match, loops as long as they can) but in
// time linear in the text, whatever the expression and the text are, for all
// matches of a text together. Package regexp of the standard library has no
// looking ahead, which nearly every tokenizer's expression needs, and finding all
// matches takes it quadratic time for expressions such as a*b|a.
//
// The text is gone over twice (Frisch and Cardelli, "Greedy Regular Expression
// Matching", 2004). From its end to its beginning a finite automaton finds, for
// each place, from which instructions of the program a match can be reached
// there. Then each match is walked along forwards, taking of the instructions
// that lead to one the first. What lies ahead is known in every place, so that
// looking ahead costs nothing. The automaton's states are sets of instructions,
// made when they are first met; for the expressions that tokenizers have there
// are some dozens, and both ways are one look-up a character.

// regex is a compiled expression. It is safe for concurrent use.
type regex struct {
	program []regexInst
	start   int32
	order   [][]int32  // instructions after those that they need to know of, in parts
	cyclic  bool       // an instruction needs to know of itself: order must be gone over again and again
	classes *runeTable // characters that the expression can't tell apart
	count   int        // how many classes there are
	sets    [][4]uint64
	behinds bool // the program looks behind

	entries []int32 // where a walk goes on after a character: start, then what follows each character
	entryOf []int32 // by instruction

	mu   sync.Mutex
	idle []*regexMachine
}

type regexOp uint8

const (
	opMatch  regexOp = iota
	opChar           // a character of set, then x
	opSplit          // x or else y
	opAhead          // x if z leads to a match here, or with not if it doesn't
	opBehind         // x if the character before is in set, or with not if it isn't
)

type regexInst struct {
	op      regexOp
	not     bool
	loop    bool // of opSplit: the body of a loop comes back here
	set     int32
	x, y, z int32
}

// exit is where a loop goes on when it ends. A body's instructions come after
// the loop's own, what follows it before.
func (in *regexInst) exit() int32 { return min(in.x, in.y) }

// maxProgram is the most instructions of an expression.
const maxProgram = 4000

// compileRegex returns an expression's program. Its errors say what of the
// expression is not supported.
func compileRegex(expr string) (*regex, error) {
	n, err := parseRegex(expr)
	if err != nil {
		return nil, err
	}
	c := &regexCompiler{setIndex: map[string]int32{}}
	match := c.add(regexInst{op: opMatch})
	re := &regex{start: c.node(n, match)}
	if c.tooLarge {
		return nil, regexError(fmt.Sprintf("more than %d instructions", maxProgram))
	}
	re.program = c.program
	if err := re.setClasses(c.sets); err != nil {
		return nil, err
	}
	re.setOrder(c.ahead)
	re.entryOf = make([]int32, len(re.program))
	entry := func(pc int32) {
		if i := slices.Index(re.entries, pc); i < 0 {
			re.entryOf[pc] = int32(len(re.entries))
			re.entries = append(re.entries, pc)
		}
	}
	entry(re.start)
	for _, in := range re.program {
		if in.op == opChar {
			entry(in.x)
		}
		re.behinds = re.behinds || in.op == opBehind
	}
	return re, nil
}

// regexCompiler makes instructions from the end of an expression to its
// beginning: each node is compiled to lead to what follows it.
type regexCompiler struct {
	program  []regexInst
	sets     []runeSet
	setIndex map[string]int32
	ahead    [][2]int32 // parts of the program that only an opAhead leads to
	tooLarge bool
}

func (c *regexCompiler) add(in regexInst) int32 {
	if len(c.program) >= maxProgram {
		c.tooLarge = true
		return 0
	}
	c.program = append(c.program, in)
	return int32(len(c.program) - 1)
}

func (c *regexCompiler) set(s runeSet) int32 {
	key := make([]byte, 0, 8*len(s))
	for _, r := range s {
		key = binary.LittleEndian.AppendUint32(key, uint32(r.lo))
		key = binary.LittleEndian.AppendUint32(key, uint32(r.hi))
	}
	i, ok := c.setIndex[string(key)]
	if !ok {
		i = int32(len(c.sets))
		c.sets = append(c.sets, s)
		c.setIndex[string(key)] = i
	}
	return i
}

// node returns the instruction that n begins with if next follows it.
func (c *regexCompiler) node(n *node, next int32) int32 {
	if c.tooLarge {
		return 0
	}
	switch n.kind {
	case nodeSet:
		return c.add(regexInst{op: opChar, set: c.set(n.set), x: next})
	case nodeCat:
		for _, s := range slices.Backward(n.subs) {
			next = c.node(s, next)
		}
	case nodeAlt:
		last := c.node(n.subs[len(n.subs)-1], next)
		for _, s := range slices.Backward(n.subs[:len(n.subs)-1]) {
			last = c.add(regexInst{op: opSplit, x: c.node(s, next), y: last})
		}
		return last
	case nodeRepeat:
		return c.repeat(n, next)
	case nodeAhead:
		from := int32(len(c.program))
		z := c.node(n.subs[0], c.add(regexInst{op: opMatch}))
		c.ahead = append(c.ahead, [2]int32{from, int32(len(c.program))})
		return c.add(regexInst{op: opAhead, not: n.not, x: next, z: z})
	case nodeBehind:
		return c.add(regexInst{op: opBehind, not: n.not, set: c.set(n.set), x: next})
	}
	return next
}

func (c *regexCompiler) repeat(n *node, next int32) int32 {
	body := n.subs[0]
	split := func(x, y int32) regexInst {
		if n.lazy {
			x, y = y, x
		}
		return regexInst{op: opSplit, x: x, y: y}
	}
	after, least := next, n.least
	if n.most < 0 {
		loop := c.add(regexInst{op: opSplit, x: next, y: next})
		first := c.node(body, loop)
		if c.tooLarge {
			return 0
		}
		c.program[loop] = split(first, after)
		c.program[loop].loop = true
		if next = loop; n.least > 0 {
			next = first
			least--
		}
	}
	for i := n.least; i < n.most; i++ {
		next = c.add(split(c.node(body, next), after))
		if c.tooLarge {
			return 0
		}
	}
	for range least {
		if next = c.node(body, next); c.tooLarge {
			return 0
		}
	}
	return next
}

// setClasses sorts the characters by the sets that they are in.
func (re *regex) setClasses(sets []runeSet) error {
	var edges []rune // where membership changes
	edges = append(edges, 0)
	for _, s := range sets {
		for _, r := range s {
			edges = append(edges, r.lo, r.hi+1)
		}
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	re.sets = make([][4]uint64, len(sets))
	index := map[string]int{}
	var members []runeSet
	place := make([]int, len(sets)) // the first range of each set that does not end before the edge
	for i, lo := range edges {
		if lo > anyRune[0].hi {
			break
		}
		hi := anyRune[0].hi
		if i+1 < len(edges) {
			hi = edges[i+1] - 1
		}
		key := make([]byte, len(sets))
		for k, s := range sets {
			for place[k] < len(s) && s[place[k]].hi < lo {
				place[k]++
			}
			if place[k] < len(s) && s[place[k]].lo <= lo {
				key[k] = 1
			}
		}
		class, ok := index[string(key)]
		if !ok {
			if class = len(members); class > 255 {
				return regexError("more than 256 kinds of characters")
			}
			index[string(key)] = class
			members = append(members, nil)
			for k, in := range key {
				if in == 1 {
					re.sets[k][class/64] |= 1 << (class % 64)
				}
			}
		}
		members[class] = append(members[class], runeRange{lo, hi})
	}
	values := make([]runeValue, len(members))
	for i, m := range members {
		values[i] = runeValue{m, uint8(i)}
	}
	re.classes, re.count = newRuneTable(values...), len(members)
	return nil
}

func (re *regex) inSet(set int32, class int) bool {
	return re.sets[set][class/64]>>(class%64)&1 != 0
}

// setOrder puts the instructions into parts, each after the parts that it looks
// ahead by, and those of a part after the instructions that they lead to without
// taking a character.
func (re *regex) setOrder(ahead [][2]int32) {
	part := make([]int, len(re.program)) // 0 is what no looking ahead leads to
	for i := len(ahead) - 1; i >= 0; i-- {
		// Inner parts come before outer ones, and count.
		for pc := ahead[i][0]; pc < ahead[i][1]; pc++ {
			part[pc] = i + 1
		}
	}
	re.order = make([][]int32, len(ahead)+1)
	const unseen, open, done = 0, 1, 2
	state := make([]uint8, len(re.program))
	// A stack of its own: programs may be as long as a goroutine's is deep.
	type frame struct {
		pc   int32
		edge int
	}
	for root := range re.program {
		if state[root] != unseen {
			continue
		}
		stack := []frame{{pc: int32(root)}}
		state[root] = open
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			in := re.program[top.pc]
			var edges []int32
			switch in.op {
			case opSplit:
				edges = []int32{in.x, in.y}
			case opAhead, opBehind:
				edges = []int32{in.x}
			}
			if top.edge == len(edges) {
				state[top.pc] = done
				// Part 0 comes last.
				at := part[top.pc] - 1
				if at < 0 {
					at = len(ahead)
				}
				re.order[at] = append(re.order[at], top.pc)
				stack = stack[:len(stack)-1]
				continue
			}
			to := edges[top.edge]
			top.edge++
			switch state[to] {
			case unseen:
				state[to] = open
				stack = append(stack, frame{pc: to})
			case open:
				re.cyclic = true
			}
		}
	}
}

const (
	// maxRegexBlock is how many bytes of a text are kept track of at once, at
	// most. Longer texts are gone over backwards twice.
	maxRegexBlock = 1 << 14
	// regexMemory bounds the memory of the states that a block makes, at most one
	// a byte, in words of 32 bits.
	regexMemory = 1 << 20
)

// regexMachine is the automaton of an expression as far as it is known, and the
// space that matching works in.
type regexMachine struct {
	re     *regex
	words  int // of the bits of a state
	stride int // of next: by the class of a character and, with behinds, of the one before
	block  int // bytes

	bits   []uint64 // by state: the instructions that lead to a match
	next   []int32  // by state and stride: the state before a character, -1 if unknown
	follow []int32  // by state and entry: the entry after the next character, or matched, or unknown
	starts []bool   // by state: a match begins here
	index  map[string]int32

	states []uint16 // of each place of the block that begins at from
	from   int
	saved  []uint64 // bits of the state at the end of each block
	ends   []int    // of the blocks, from the last to the first

	steps   int // characters gone over, backwards and forwards
	work    []uint64
	visited []uint64
	key     []byte
}

const (
	followUnknown = -1
	followMatch   = -2
)

// machine takes an idle machine, or makes one.
func (re *regex) machine() *regexMachine {
	re.mu.Lock()
	defer re.mu.Unlock()
	if n := len(re.idle); n > 0 {
		m := re.idle[n-1]
		re.idle = re.idle[:n-1]
		return m
	}
	m := &regexMachine{re: re, words: (len(re.program) + 63) / 64, stride: re.count, states: make([]uint16, 0, 256)}
	if re.behinds {
		m.stride *= re.count + 1
	}
	m.block = max(64, min(maxRegexBlock, regexMemory/(m.stride+len(re.entries)+2*m.words)))
	m.work, m.visited = make([]uint64, m.words), make([]uint64, m.words)
	m.forget()
	return m
}

// maxIdle is how many machines are kept for the next text.
const maxIdle = 64

func (re *regex) putBack(m *regexMachine) {
	re.mu.Lock()
	if len(re.idle) < maxIdle {
		re.idle = append(re.idle, m)
	}
	re.mu.Unlock()
}

// forget drops all states.
func (m *regexMachine) forget() {
	m.bits, m.next, m.follow, m.starts = m.bits[:0], m.next[:0], m.follow[:0], m.starts[:0]
	m.index = map[string]int32{}
}

// state returns the number of the state with the bits in m.work.
func (m *regexMachine) state(bits []uint64) int32 {
	m.key = m.key[:0]
	for _, w := range bits {
		m.key = binary.LittleEndian.AppendUint64(m.key, w)
	}
	if id, ok := m.index[string(m.key)]; ok {
		return id
	}
	id := int32(len(m.starts))
	m.index[string(m.key)] = id
	m.bits = append(m.bits, bits...)
	for range m.stride {
		m.next = append(m.next, -1)
	}
	for range m.re.entries {
		m.follow = append(m.follow, followUnknown)
	}
	m.starts = append(m.starts, bits[m.re.start/64]>>(m.re.start%64)&1 != 0)
	return id
}

func hasBit(bits []uint64, i int32) bool { return bits[i/64]>>(i%64)&1 != 0 }

// before computes the state before a character of class c, given the one after
// it, or at the end of the text with c < 0. prev is the class of the character
// before that, or -1 at the beginning of the text.
func (m *regexMachine) before(after []uint64, c, prev int) int32 {
	re, bits := m.re, m.work
	clear(bits)
	for _, part := range re.order {
		for changed := true; changed; {
			changed = false
			for _, pc := range part {
				in := &re.program[pc]
				var on bool
				switch in.op {
				case opMatch:
					on = true
				case opChar:
					on = c >= 0 && re.inSet(in.set, c) && hasBit(after, in.x)
				case opSplit:
					on = hasBit(bits, in.x) || hasBit(bits, in.y)
				case opAhead:
					on = hasBit(bits, in.z) != in.not && hasBit(bits, in.x)
				case opBehind:
					on = (prev >= 0 && re.inSet(in.set, prev)) != in.not && hasBit(bits, in.x)
				}
				if on && !hasBit(bits, pc) {
					bits[pc/64] |= 1 << (pc % 64)
					changed = re.cyclic
				}
			}
		}
	}
	return m.state(bits)
}

// last returns the class of the character that ends at s[i], i > 0, and its
// length.
func (re *regex) last(s string, i int) (class, n int) {
	if c := s[i-1]; c < utf8.RuneSelf {
		return int(re.classes.ascii[c]), 1
	}
	r, n := utf8.DecodeLastRuneInString(s[:i])
	return int(re.classes.of(r)), n
}

// prevClass is the class of the character that ends at s[i], or -1.
func (m *regexMachine) prevClass(s string, i int) int {
	if i == 0 || !m.re.behinds {
		return -1
	}
	c, _ := m.re.last(s, i)
	return c
}

// back goes over s[from:to] from its end, where the state is id, and returns the
// state at from. With keep it writes down the states of all places.
func (m *regexMachine) back(s string, from, to int, id int32, keep bool) int32 {
	re := m.re
	m.steps += to - from
	if keep {
		m.from = from
		if cap(m.states) < to-from+1 {
			m.states = make([]uint16, to-from+1, to-from+1+(to-from)/2)
		}
		m.states = m.states[:to-from+1]
		m.states[to-from] = uint16(id)
	}
	ascii := &re.classes.ascii
	for i := to; i > from; {
		var c int
		n := 1
		if b := s[i-1]; b < utf8.RuneSelf {
			c = int(ascii[b])
		} else {
			c, n = re.last(s, i)
		}
		i -= n
		slot := int(id)*m.stride + c
		prev := -1
		if re.behinds {
			prev = m.prevClass(s, i)
			slot = int(id)*m.stride + c*(re.count+1) + prev + 1
		}
		to := m.next[slot]
		if to < 0 {
			to = m.before(m.bits[int(id)*m.words:(int(id)+1)*m.words], c, prev)
			m.next[slot] = to
		}
		id = to
		if keep {
			m.states[i-from] = uint16(id)
		}
	}
	return id
}

// begin goes over the whole text backwards.
func (m *regexMachine) begin(s string) {
	m.room()
	id := m.before(m.work, -1, m.prevClass(s, len(s)))
	m.ends, m.saved = m.ends[:0], m.saved[:0]
	end := len(s)
	for end > m.block {
		m.ends = append(m.ends, end)
		m.saved = append(m.saved, m.bits[int(id)*m.words:(int(id)+1)*m.words]...)
		from := runeBoundary(s, end-m.block)
		id = m.back(s, from, end, id, false)
		end = from
		id = m.keepRoom(id)
	}
	m.back(s, 0, end, id, true)
}

// room forgets the states if there are more than the next block might make.
func (m *regexMachine) room() bool {
	if len(m.starts) <= 2*m.block {
		return false
	}
	m.forget()
	return true
}

// keepRoom is room, but keeps one state.
func (m *regexMachine) keepRoom(id int32) int32 {
	copy(m.work, m.bits[int(id)*m.words:(int(id)+1)*m.words])
	if m.room() {
		return m.state(m.work)
	}
	return id
}

// advance goes on to the block that begins where the present one ends.
func (m *regexMachine) advance(s string) {
	k := len(m.ends) - 1
	m.room()
	copy(m.work, m.saved[k*m.words:(k+1)*m.words])
	id := m.state(m.work)
	from, to := m.from+len(m.states)-1, m.ends[k]
	m.ends, m.saved = m.ends[:k], m.saved[:k*m.words]
	m.back(s, from, to, id, true)
}

// runeBoundary returns the first place at or after i that lies between characters.
func runeBoundary(s string, i int) int {
	for j := i - 1; j >= max(0, i-3); j-- {
		if utf8.RuneStart(s[j]) {
			if _, n := utf8.DecodeRuneInString(s[j:]); j+n > i {
				return j + n
			}
			break
		}
	}
	return i
}

// matches calls found for the matches of s, in their order. Empty ones are among
// them, except where a match just ended.
func (re *regex) matches(s string, found func(start, end int)) {
	m := re.machine()
	defer re.putBack(m)
	m.begin(s)
	lastEnd := -1
	for i := 0; ; {
		for !m.starts[m.states[i-m.from]] {
			if i == len(s) {
				return
			}
			i = m.skip(s, i)
			m.steps++
		}
		end := m.walk(s, i)
		m.steps += end - i + 1
		switch {
		case end > i || end != lastEnd:
			found(i, end)
			i, lastEnd = end, end
		case i == len(s):
			return
		default:
			i = m.skip(s, i)
		}
	}
}

// skip returns where the character that begins at s[i] ends.
func (m *regexMachine) skip(s string, i int) int {
	if s[i] < utf8.RuneSelf {
		i++
	} else {
		_, n := utf8.DecodeRuneInString(s[i:])
		i += n
	}
	if i-m.from >= len(m.states)-1 && len(m.ends) > 0 {
		m.advance(s)
	}
	return i
}

// walk returns the end of the match that begins at s[i].
func (m *regexMachine) walk(s string, i int) int {
	entries := len(m.re.entries)
	for entry := int32(0); ; {
		slot := int(m.states[i-m.from])*entries + int(entry)
		to := m.follow[slot]
		if to == followUnknown {
			to = m.first(m.states[i-m.from], entry)
			m.follow[slot] = to
		}
		if to == followMatch {
			return i
		}
		entry = to
		if s[i] < utf8.RuneSelf {
			i++
			if i-m.from < len(m.states)-1 || len(m.ends) == 0 {
				continue
			}
			i--
		}
		i = m.skip(s, i)
	}
}

// first finds, of the instructions that lead to a match in a state, the first
// that takes a character or is the match.
func (m *regexMachine) first(state uint16, entry int32) int32 {
	clear(m.visited)
	bits := m.bits[int(state)*m.words : (int(state)+1)*m.words]
	var find func(pc int32) int32
	find = func(pc int32) int32 {
		in := &m.re.program[pc]
		switch {
		case !hasBit(bits, pc):
			return followUnknown
		case hasBit(m.visited, pc):
			if in.loop { // its body took nothing, which ends the loop
				return find(in.exit())
			}
			return followUnknown
		}
		m.visited[pc/64] |= 1 << (pc % 64)
		switch in.op {
		case opMatch:
			return followMatch
		case opChar:
			return m.re.entryOf[in.x]
		case opSplit:
			if to := find(in.x); to != followUnknown {
				return to
			}
			return find(in.y)
		default:
			return find(in.x)
		}
	}
	to := find(m.re.entries[entry])
	if to == followUnknown {
		panic("tokenizer: a match that leads nowhere")
	}
	return to
}
