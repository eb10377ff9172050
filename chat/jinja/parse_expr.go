package jinja

import (
	"strconv"
	"strings"
)

// The grammar of expressions, loosest first:
//
//	expression  or [if or [else expression]]
//	or, and, not
//	comparison  chained as in Python: < <= > >= == != in, not in
//	sum         + -
//	concat      ~
//	product     * / // %
//	power       ** (to the left, unlike Python's)
//	unary       - + primary, then .name [index] (call), then | filters and is tests

func (p *parser) expression() (expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	line := p.cur().line
	e, err := p.or()
	for err == nil && p.skipName("if") {
		node := &condNode{line: line, then: e}
		if node.test, err = p.or(); err != nil {
			return nil, err
		}
		if p.skipName("else") {
			if node.orElse, err = p.expression(); err != nil {
				return nil, err
			}
		}
		e = node
	}
	return e, err
}

func (p *parser) or() (expr, error) {
	e, err := p.and()
	if err != nil || !p.isName("or") {
		return e, err
	}
	node := &logicNode{items: []expr{e}, until: true}
	for p.skipName("or") {
		if e, err = p.and(); err != nil {
			return nil, err
		}
		node.items = append(node.items, e)
	}
	return node, nil
}

func (p *parser) and() (expr, error) {
	e, err := p.not()
	if err != nil || !p.isName("and") {
		return e, err
	}
	node := &logicNode{items: []expr{e}, until: false}
	for p.skipName("and") {
		if e, err = p.not(); err != nil {
			return nil, err
		}
		node.items = append(node.items, e)
	}
	return node, nil
}

func (p *parser) not() (expr, error) {
	if !p.skipName("not") {
		return p.comparison()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	e, err := p.not()
	return &notNode{e}, err
}

func (p *parser) comparison() (expr, error) {
	line := p.cur().line
	e, err := p.sum()
	if err != nil {
		return nil, err
	}
	node := &compareNode{line: line, first: e}
	for {
		op := ""
		switch t := p.cur(); {
		case t.kind == tokOperator && (t.text == "==" || t.text == "!=" || t.text == "<" || t.text == "<=" || t.text == ">" || t.text == ">="):
			op = t.text
		case p.isName("in"):
			op = "in"
		case p.isName("not") && p.peek().kind == tokName && p.peek().text == "in":
			p.next()
			op = "not in"
		default:
			if len(node.rest) == 0 {
				return e, nil
			}
			return node, nil
		}
		p.next()
		operand, err := p.sum()
		if err != nil {
			return nil, err
		}
		node.rest = append(node.rest, compareTerm{op, operand})
	}
}

// binary parses a chain of operators of one precedence, grouping to the left.
func (p *parser) binary(operand func() (expr, error), ops ...string) (expr, error) {
	e, err := operand()
	for n := 0; err == nil; n++ {
		op := ""
		for _, o := range ops {
			if p.isOp(o) {
				op = o
			}
		}
		if op == "" {
			return e, nil
		}
		if n > 4*maxNesting {
			return nil, at(errorf("a chain of more than %d '%s'", n, op), p.cur().line)
		}
		line := p.next().line
		node := &binaryNode{line: line, op: op, a: e}
		node.b, err = operand()
		e = node
	}
	return nil, err
}

func (p *parser) sum() (expr, error) { return p.binary(p.concat, "+", "-") }

func (p *parser) concat() (expr, error) {
	line := p.cur().line
	e, err := p.product()
	if err != nil || !p.isOp("~") {
		return e, err
	}
	node := &concatNode{line: line, items: []expr{e}}
	for p.skipOp("~") {
		if e, err = p.product(); err != nil {
			return nil, err
		}
		node.items = append(node.items, e)
	}
	return node, nil
}

func (p *parser) product() (expr, error) { return p.binary(p.power, "*", "/", "//", "%") }

func (p *parser) power() (expr, error) {
	return p.binary(func() (expr, error) { return p.unary(true) }, "**")
}

func (p *parser) unary(withFilters bool) (expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	var e expr
	var err error
	if t := p.cur(); p.isOp("-") || p.isOp("+") {
		p.next()
		node := &signNode{line: t.line, minus: t.text == "-"}
		node.value, err = p.unary(false)
		e = node
	} else {
		e, err = p.primary(false)
	}
	if err != nil {
		return nil, err
	}
	if e, err = p.postfix(e); err != nil || !withFilters {
		return e, err
	}
	for n := 0; ; n++ {
		if n > maxNesting {
			return nil, at(errorf("a chain of more than %d filters", n), p.cur().line)
		}
		switch {
		case p.isOp("|"):
			e, err = p.filters(e)
		case p.isName("is"):
			e, err = p.test(e)
		case p.isOp("("):
			e, err = p.call(e)
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) primary(attributes bool) (expr, error) {
	t := p.cur()
	switch t.kind {
	case tokName:
		p.next()
		return p.name(t, attributes)
	case tokString:
		var text strings.Builder
		for p.cur().kind == tokString { // adjacent literals are one
			text.WriteString(p.next().text)
		}
		return &constNode{String(text.String())}, nil
	case tokInteger:
		p.next()
		v, ok := parseInt(t.text, 0)
		if !ok {
			return nil, at(errorf("integer literal '%.40s' is out of range", t.text), t.line)
		}
		return &constNode{v}, nil
	case tokFloat:
		p.next()
		f, err := strconv.ParseFloat(t.text, 64)
		if err != nil && f == 0 {
			return nil, at(errorf("float literal '%.40s'", t.text), t.line)
		}
		return &constNode{Float(f)}, nil
	case tokOperator:
		switch t.text {
		case "(":
			p.next()
			e, err := p.tuple(tupleOptions{conditional: true, parenthesized: true})
			if err != nil {
				return nil, err
			}
			return e, p.expectOp(")")
		case "[":
			return p.listLiteral()
		case "{":
			return p.dictLiteral()
		}
	}
	return nil, at(errorf("expected an expression, got %s", t.describe()), t.line)
}

func (p *parser) name(t token, attributes bool) (expr, error) {
	switch t.text {
	case "true", "True":
		return &constNode{Bool(true)}, nil
	case "false", "False":
		return &constNode{Bool(false)}, nil
	case "none", "None":
		return &constNode{None{}}, nil
	}
	if attributes && p.skipOp(".") {
		attr, err := p.expectName()
		return &attrTarget{t.text, attr.text}, err
	}
	if m := p.macro; m != nil {
		m.usesCaller = m.usesCaller || t.text == "caller"
		m.usesArgs = m.usesArgs || t.text == "varargs"
		m.usesKwargs = m.usesKwargs || t.text == "kwargs"
	}
	return &nameNode{t.text}, nil
}

// tupleOptions say where an expression or an unparenthesized tuple of expressions may end.
type tupleOptions struct {
	conditional   bool   // inline if is allowed (it isn't where a tag's own if may follow)
	parenthesized bool   // the tuple may be empty
	simple        bool   // names and literals only
	attributes    bool   // name.attribute is a target
	end           string // a keyword that ends the tuple
}

func (p *parser) tuple(o tupleOptions) (expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	var items []expr
	isTuple := false
	for {
		if len(items) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		if t := p.cur(); t.kind == tokVarEnd || t.kind == tokTagEnd || p.isOp(")") || o.end != "" && p.isName(o.end) {
			break
		}
		var e expr
		var err error
		switch {
		case o.simple:
			e, err = p.primary(o.attributes)
		case o.conditional:
			e, err = p.expression()
		default:
			e, err = p.or()
		}
		if err != nil {
			return nil, err
		}
		items = append(items, e)
		if !p.isOp(",") {
			break
		}
		isTuple = true
	}
	if isTuple || len(items) == 0 && o.parenthesized {
		return &tupleNode{items}, nil
	}
	if len(items) == 0 {
		return nil, at(errorf("expected an expression, got %s", p.cur().describe()), p.cur().line)
	}
	return items[0], nil
}

func (p *parser) listLiteral() (expr, error) {
	p.next()
	node := &listNode{}
	for !p.isOp("]") {
		if len(node.items) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
			if p.isOp("]") {
				break
			}
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		node.items = append(node.items, e)
	}
	return node, p.expectOp("]")
}

func (p *parser) dictLiteral() (expr, error) {
	node := &dictNode{line: p.next().line}
	for !p.isOp("}") {
		if len(node.keys) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
			if p.isOp("}") {
				break
			}
		}
		key, err := p.expression()
		if err != nil {
			return nil, err
		}
		if err := p.expectOp(":"); err != nil {
			return nil, err
		}
		value, err := p.expression()
		if err != nil {
			return nil, err
		}
		node.keys = append(node.keys, key)
		node.values = append(node.values, value)
	}
	return node, p.expectOp("}")
}

func (p *parser) postfix(e expr) (expr, error) {
	for n := 0; ; n++ {
		if n > maxNesting {
			return nil, at(errorf("a chain of more than %d accesses", n), p.cur().line)
		}
		var err error
		switch {
		case p.isOp("."):
			e, err = p.attribute(e)
		case p.isOp("["):
			e, err = p.subscript(e)
		case p.isOp("("):
			e, err = p.call(e)
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) attribute(e expr) (expr, error) {
	line := p.next().line
	switch t := p.next(); t.kind {
	case tokName:
		return &attrNode{line, e, t.text}, nil
	case tokInteger:
		if v, ok := parseInt(t.text, 0); ok {
			return &itemNode{line, e, &constNode{v}}, nil
		}
	}
	return nil, at(errorf("expected a name or a number after '.'"), line)
}

func (p *parser) subscript(e expr) (expr, error) {
	line := p.next().line
	var items []expr
	for !p.isOp("]") {
		if len(items) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		item, err := p.subscriptItem()
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	p.next()
	switch len(items) {
	case 0:
		return nil, at(errorf("expected an index inside of []"), line)
	case 1:
		return &itemNode{line, e, items[0]}, nil
	}
	return &itemNode{line, e, &tupleNode{items}}, nil
}

// subscriptItem parses an index or a slice start:stop:step.
func (p *parser) subscriptItem() (expr, error) {
	node := &sliceNode{}
	var err error
	if !p.isOp(":") {
		if node.start, err = p.expression(); err != nil {
			return nil, err
		}
		if !p.isOp(":") {
			return node.start, nil
		}
	}
	p.next()
	if !p.isOp(":") && !p.isOp("]") && !p.isOp(",") {
		if node.stop, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if p.skipOp(":") && !p.isOp("]") && !p.isOp(",") {
		if node.step, err = p.expression(); err != nil {
			return nil, err
		}
	}
	return node, nil
}

func (p *parser) call(e expr) (expr, error) {
	node := &callNode{line: p.cur().line, fn: e}
	var err error
	node.args, err = p.callArgs()
	return node, err
}

func (p *parser) callArgs() (argsNode, error) {
	var a argsNode
	line := p.next().line
	for first := true; !p.isOp(")"); first = false {
		if !first {
			if err := p.expectOp(","); err != nil {
				return a, err
			}
			if p.isOp(")") {
				break
			}
		}
		var err error
		switch {
		case a.restKeywords != nil:
			err = at(errorf("an argument after **"), line)
		case p.isOp("*") && a.rest == nil:
			p.next()
			a.rest, err = p.expression()
		case p.isOp("**"):
			p.next()
			a.restKeywords, err = p.expression()
		case p.cur().kind == tokName && p.peek().kind == tokOperator && p.peek().text == "=":
			name := p.next().text
			p.next()
			var value expr
			value, err = p.expression()
			a.keywords = append(a.keywords, keywordNode{name, value})
		case a.rest != nil || len(a.keywords) > 0:
			err = at(errorf("a positional argument after a keyword argument"), line)
		default:
			var value expr
			value, err = p.expression()
			a.items = append(a.items, value)
		}
		if err != nil {
			return a, err
		}
	}
	p.next()
	return a, nil
}

// filters parses |name(args)... applied to e.
func (p *parser) filters(e expr) (expr, error) {
	for n := 0; p.skipOp("|"); n++ {
		if n > maxNesting {
			return nil, at(errorf("a chain of more than %d filters", n), p.cur().line)
		}
		var err error
		if e, err = p.filter(e); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// filter parses name(args), a filter applied to e.
func (p *parser) filter(e expr) (expr, error) {
	name, err := p.dottedName()
	if err != nil {
		return nil, err
	}
	node := &filterNode{line: name.line, name: name.text, value: e}
	if p.isOp("(") {
		node.args, err = p.callArgs()
	}
	return node, err
}

func (p *parser) dottedName() (token, error) {
	name, err := p.expectName()
	for err == nil && p.skipOp(".") {
		var part token
		part, err = p.expectName()
		name.text += "." + part.text
	}
	return name, err
}

// test parses "is [not] name", with arguments in parentheses or a single one without.
func (p *parser) test(e expr) (expr, error) {
	p.next()
	negated := p.skipName("not")
	name, err := p.dottedName()
	if err != nil {
		return nil, err
	}
	node := &testNode{line: name.line, name: name.text, value: e}
	switch t := p.cur(); {
	case p.isOp("("):
		node.args, err = p.callArgs()
	case p.isName("else") || p.isName("or") || p.isName("and"):
	case p.isName("is"):
		err = at(errorf("tests can't be chained with 'is'"), t.line)
	case t.kind == tokName || t.kind == tokString || t.kind == tokInteger || t.kind == tokFloat || p.isOp("[") || p.isOp("{"):
		var arg expr
		if arg, err = p.primary(false); err == nil {
			arg, err = p.postfix(arg)
		}
		node.args.items = []expr{arg}
	}
	if negated {
		return &notNode{node}, err
	}
	return node, err
}
