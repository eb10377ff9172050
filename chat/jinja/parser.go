package jinja

import (
	"slices"
	"strings"
)

// maxNesting bounds the nesting of tags and of expressions in a template's source.
const maxNesting = 300

// Parse compiles a template. The name appears in errors.
func Parse(name, source string) (*Template, error) {
	t := &Template{name: name}
	tokens, err := lex(source)
	if err != nil {
		return nil, t.locate(err)
	}
	p := &parser{tokens: tokens}
	t.body, err = p.statements(nil)
	if err != nil {
		return nil, t.locate(at(err, p.cur().line))
	}
	t.generation = p.generation
	return t, nil
}

// parser is a recursive-descent parser over the tokens of a template.
type parser struct {
	tokens     []token
	pos        int
	depth      int
	loops      int        // enclosing for loops that break and continue may refer to
	open       []string   // enclosing tags, for error messages
	macro      *macroNode // the macro or call block whose body is being parsed
	generation bool       // a generation block was seen
}

func (p *parser) cur() token { return p.tokens[p.pos] }

func (p *parser) peek() token { return p.tokens[min(p.pos+1, len(p.tokens)-1)] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if p.pos < len(p.tokens)-1 {
		p.pos++
	}
	return t
}

func (p *parser) isOp(op string) bool {
	t := p.cur()
	return t.kind == tokOperator && t.text == op
}

func (p *parser) isName(name string) bool {
	t := p.cur()
	return t.kind == tokName && t.text == name
}

func (p *parser) skipOp(op string) bool {
	if p.isOp(op) {
		p.next()
		return true
	}
	return false
}

func (p *parser) skipName(name string) bool {
	if p.isName(name) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expectOp(op string) error {
	if !p.skipOp(op) {
		return at(errorf("expected '%s', got %s", op, p.cur().describe()), p.cur().line)
	}
	return nil
}

func (p *parser) expectKeyword(name string) error {
	if !p.skipName(name) {
		return at(errorf("expected '%s', got %s", name, p.cur().describe()), p.cur().line)
	}
	return nil
}

func (p *parser) expectName() (token, error) {
	if p.cur().kind != tokName {
		return token{}, at(errorf("expected a name, got %s", p.cur().describe()), p.cur().line)
	}
	return p.next(), nil
}

func (p *parser) expectKind(kind tokenKind, text string) error {
	if p.cur().kind != kind {
		return at(errorf("expected '%s', got %s", text, p.cur().describe()), p.cur().line)
	}
	p.next()
	return nil
}

func (p *parser) enter() error {
	p.depth++
	if p.depth > maxNesting {
		return at(errorf("nested deeper than %d levels", maxNesting), p.cur().line)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// statements parses text and tags until one of the tags in ends, at whose name it stops; nil stands for the end of
// the template.
func (p *parser) statements(ends []string) ([]stmt, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	var body []stmt
	for {
		t := p.next()
		switch t.kind {
		case tokEOF:
			if ends != nil {
				return nil, at(errorf("the template ends inside of '%s': expected %s", p.open[len(p.open)-1], orTags(ends)), t.line)
			}
			return body, nil
		case tokData:
			body = append(body, &textNode{String(t.text)})
		case tokVarBegin:
			e, err := p.tuple(tupleOptions{conditional: true})
			if err != nil {
				return nil, err
			}
			if err := p.expectKind(tokVarEnd, "}}"); err != nil {
				return nil, err
			}
			body = append(body, &printNode{t.line, e})
		case tokTagBegin:
			if name := p.cur(); name.kind == tokName && slices.Contains(ends, name.text) {
				return body, nil
			}
			s, err := p.statement(ends)
			if err != nil {
				return nil, err
			}
			if err := p.expectKind(tokTagEnd, "%}"); err != nil {
				return nil, err
			}
			body = append(body, s)
		}
	}
}

// block parses the rest of an opening tag and the body up to one of ends, whose name it consumes and returns.
func (p *parser) block(ends ...string) ([]stmt, string, error) {
	p.skipOp(":")
	if err := p.expectKind(tokTagEnd, "%}"); err != nil {
		return nil, "", err
	}
	body, err := p.statements(ends)
	if err != nil {
		return nil, "", err
	}
	return body, p.next().text, nil
}

func orTags(tags []string) string {
	quoted := make([]string, len(tags))
	for i, tag := range tags {
		quoted[i] = "'" + tag + "'"
	}
	return strings.Join(quoted, " or ")
}

func (p *parser) statement(ends []string) (stmt, error) {
	tag, err := p.expectName()
	if err != nil {
		return nil, err
	}
	p.open = append(p.open, tag.text)
	defer func() { p.open = p.open[:len(p.open)-1] }()
	switch tag.text {
	case "if":
		return p.ifStatement(tag.line)
	case "for":
		return p.forStatement(tag.line)
	case "set":
		return p.setStatement(tag.line)
	case "macro":
		return p.macroStatement(tag.line)
	case "call":
		return p.callStatement(tag.line)
	case "filter":
		return p.filterStatement(tag.line)
	case "with":
		return p.withStatement(tag.line)
	case "generation":
		return p.generationStatement(tag.line)
	case "print":
		return p.printStatement(tag.line)
	case "break", "continue":
		if p.loops == 0 {
			return nil, at(errorf("'%s' outside of a loop", tag.text), tag.line)
		}
		if tag.text == "break" {
			return &jumpNode{errBreak}, nil
		}
		return &jumpNode{errContinue}, nil
	case "extends", "include", "import", "from", "block", "autoescape":
		return nil, at(errorf("tag '%s' is not supported: a chat template stands alone", tag.text), tag.line)
	}
	if ends != nil {
		return nil, at(errorf("unknown tag '%s' (expected %s)", tag.text, orTags(ends)), tag.line)
	}
	return nil, at(errorf("unknown tag '%s'", tag.text), tag.line)
}

func (p *parser) ifStatement(line int) (stmt, error) {
	node := &ifNode{}
	for {
		test, err := p.tuple(tupleOptions{})
		if err != nil {
			return nil, err
		}
		body, end, err := p.block("elif", "else", "endif")
		if err != nil {
			return nil, err
		}
		node.branches = append(node.branches, branch{line, test, body})
		line = p.cur().line
		switch end {
		case "else":
			node.orElse, _, err = p.block("endif")
			return node, err
		case "endif":
			return node, nil
		}
	}
}

func (p *parser) forStatement(line int) (stmt, error) {
	node := &forNode{line: line}
	var err error
	if node.target, err = p.target("in", false); err != nil {
		return nil, err
	}
	if err = p.expectKeyword("in"); err != nil {
		return nil, err
	}
	if node.iter, err = p.tuple(tupleOptions{end: "recursive"}); err != nil {
		return nil, err
	}
	if p.skipName("if") {
		if node.test, err = p.expression(); err != nil {
			return nil, err
		}
	}
	node.recursive = p.skipName("recursive")
	if assigns(node.target, "loop") {
		return nil, at(errorf("a loop can't assign to 'loop'"), line)
	}
	p.loops++
	body, end, err := p.block("endfor", "else")
	p.loops--
	if err != nil {
		return nil, err
	}
	node.body = body
	if end == "else" {
		node.orElse, _, err = p.block("endfor")
	}
	return node, err
}

func (p *parser) setStatement(line int) (stmt, error) {
	target, err := p.target("", true)
	if err != nil {
		return nil, err
	}
	if p.skipOp("=") {
		value, err := p.tuple(tupleOptions{conditional: true})
		return &setNode{line, target, value}, err
	}
	node := &setBlockNode{line: line, target: target}
	if node.filter, err = p.filters(node.slot()); err != nil {
		return nil, err
	}
	node.body, _, err = p.block("endset")
	return node, err
}

// target parses what a value can be assigned to: a name, an attribute of a namespace, or a tuple of them.
func (p *parser) target(end string, attributes bool) (target, error) {
	line := p.cur().line
	e, err := p.tuple(tupleOptions{end: end, simple: true, attributes: attributes})
	if err != nil {
		return nil, err
	}
	return asTarget(e, line)
}

func asTarget(e expr, line int) (target, error) {
	switch e := e.(type) {
	case *nameNode:
		return &nameTarget{e.name}, nil
	case *attrTarget:
		return e, nil
	case *tupleNode:
		node := &tupleTarget{}
		for _, item := range e.items {
			t, err := asTarget(item, line)
			if err != nil {
				return nil, err
			}
			node.items = append(node.items, t)
		}
		return node, nil
	}
	return nil, at(errorf("can't assign to this expression"), line)
}

// inFunction parses a body that runs as a function of its own, so that loops around it are out of reach.
func (p *parser) inFunction(m *macroNode, end string) error {
	loops, outer := p.loops, p.macro
	p.loops, p.macro = 0, m
	var err error
	m.body, _, err = p.block(end)
	p.loops, p.macro = loops, outer
	return err
}

func (p *parser) macroStatement(line int) (stmt, error) {
	name, err := p.expectName()
	if err != nil {
		return nil, err
	}
	node := &macroNode{name: name.text, line: line}
	if err := p.signature(node); err != nil {
		return nil, err
	}
	return node, p.inFunction(node, "endmacro")
}

func (p *parser) signature(m *macroNode) error {
	if err := p.expectOp("("); err != nil {
		return err
	}
	outer := p.macro
	p.macro = m // defaults may refer to caller and varargs too
	defer func() { p.macro = outer }()
	for !p.isOp(")") {
		if len(m.params) > 0 {
			if err := p.expectOp(","); err != nil {
				return err
			}
		}
		name, err := p.expectName()
		if err != nil {
			return err
		}
		param := param{name: name.text}
		if p.skipOp("=") {
			if param.value, err = p.expression(); err != nil {
				return err
			}
		} else if n := len(m.params); n > 0 && m.params[n-1].value != nil {
			return at(errorf("parameter '%s' without a default follows one with a default", name.text), name.line)
		}
		m.params = append(m.params, param)
	}
	p.next()
	return nil
}

func (p *parser) callStatement(line int) (stmt, error) {
	node := &callBlockNode{line: line, body: &macroNode{name: "caller", line: line}}
	if p.isOp("(") {
		if err := p.signature(node.body); err != nil {
			return nil, err
		}
	}
	e, err := p.expression()
	if err != nil {
		return nil, err
	}
	call, ok := e.(*callNode)
	if !ok {
		return nil, at(errorf("a call block needs a call, as in {%% call name() %%}"), line)
	}
	node.call = call
	return node, p.inFunction(node.body, "endcall")
}

func (p *parser) filterStatement(line int) (stmt, error) {
	node := &filterBlockNode{line: line}
	first, err := p.filter(node.slot())
	if err != nil {
		return nil, err
	}
	if node.filter, err = p.filters(first); err != nil {
		return nil, err
	}
	node.body, _, err = p.block("endfilter")
	return node, err
}

func (p *parser) withStatement(line int) (stmt, error) {
	node := &withNode{line: line}
	for p.cur().kind != tokTagEnd {
		if len(node.targets) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		t, err := p.target("", false)
		if err != nil {
			return nil, err
		}
		if err := p.expectOp("="); err != nil {
			return nil, err
		}
		value, err := p.expression()
		if err != nil {
			return nil, err
		}
		node.targets = append(node.targets, t)
		node.values = append(node.values, value)
	}
	var err error
	node.body, _, err = p.block("endwith")
	return node, err
}

func (p *parser) generationStatement(line int) (stmt, error) {
	p.generation = true
	node := &generationNode{line: line}
	body := &macroNode{}
	outer := p.macro
	if err := p.inFunction(body, "endgeneration"); err != nil {
		return nil, err
	}
	if outer != nil { // the block sees the macro around it
		outer.usesCaller = outer.usesCaller || body.usesCaller
		outer.usesArgs = outer.usesArgs || body.usesArgs
		outer.usesKwargs = outer.usesKwargs || body.usesKwargs
	}
	node.body = body.body
	return node, nil
}

func (p *parser) printStatement(line int) (stmt, error) {
	node := &seqNode{}
	for p.cur().kind != tokTagEnd {
		if len(node.body) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		node.body = append(node.body, &printNode{line, e})
	}
	return node, nil
}
