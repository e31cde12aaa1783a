package iam

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Parse reads the document of an identity, such as a Lambda authorizer returns: its
// statements are about whoever calls, and name no Principal. The error joins an
// *Error for each thing that is wrong.
func Parse(data []byte) (*Policy, error) { return parse(data, false) }

// ParseResource reads the document of an API: its statements say with Principal or
// NotPrincipal who they are about.
func ParseResource(data []byte) (*Policy, error) { return parse(data, true) }

// parser makes a Policy of nodes, and notes all that is wrong on the way.
type parser struct {
	data       []byte
	ofResource bool
	with       syntax
	found      []error
	sids       []string
	headers    bool
}

func parse(data []byte, ofResource bool) (*Policy, error) {
	root, err := read(data)
	if err != nil {
		return nil, err
	}
	p := parser{data: data, ofResource: ofResource, with: wildcards}
	policy := p.document(&root)
	if len(p.found) > 0 {
		return nil, errors.Join(p.found...)
	}
	policy.headers = p.headers
	return policy, nil
}

func (p *parser) fail(at int, format string, args ...any) {
	if len(p.found) < maxFound {
		p.found = append(p.found, fault(p.data, at, fmt.Sprintf(format, args...)))
	}
}

// members returns the members of an object by name, of which known are all.
func (p *parser) members(n *node, what string, known ...string) map[string]*member {
	if n.kind != isObject {
		p.fail(n.at, "%s has to be an object, not %s", what, n.kind)
		return nil
	}
	all := map[string]*member{}
	for i := range n.members {
		m := &n.members[i]
		if !slices.Contains(known, m.name) {
			p.fail(m.at, "%s has no member %q, only %s", what, m.name, strings.Join(known, ", "))
			continue
		}
		all[m.name] = m
	}
	return all
}

func (p *parser) document(n *node) *Policy {
	all := p.members(n, "a policy", "Version", "Id", "Statement")
	if all == nil {
		return nil
	}
	if m := all["Version"]; m != nil {
		switch {
		case m.value.kind == isString && m.value.text == "2012-10-17":
			p.with |= variables
		case m.value.kind != isString || m.value.text != "2008-10-17":
			p.fail(m.value.at, `Version has to be "2012-10-17"`)
		}
	}
	if m := all["Id"]; m != nil && m.value.kind != isString {
		p.fail(m.value.at, "Id has to be a string, not %s", m.value.kind)
	}
	m := all["Statement"]
	if m == nil {
		p.fail(n.at, "the policy has no Statement")
		return nil
	}
	list := []node{m.value}
	if m.value.kind == isList {
		list = m.value.items
	}
	if len(list) == 0 {
		p.fail(m.value.at, "Statement is empty, so nothing would be allowed; write a statement with Effect, Action and Resource")
	}
	policy := &Policy{}
	for i := range list {
		policy.statements = append(policy.statements, p.statement(&list[i], i+1))
	}
	return policy
}

func (p *parser) statement(n *node, number int) (s statement) {
	all := p.members(n, "a statement", "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition")
	if all == nil {
		return s
	}
	line := fault(p.data, n.at, "").Line
	s.name = fmt.Sprintf("statement %d (line %d)", number, line)
	if sid := p.sid(all["Sid"]); sid != "" {
		s.name = fmt.Sprintf("statement %d %q (line %d)", number, sid, line)
	}
	s.said = s.name + " allows it"
	switch m := all["Effect"]; {
	case m == nil:
		p.fail(n.at, `the statement has no Effect; write "Allow" or "Deny"`)
	case m.value.kind == isString && m.value.text == "Allow":
	case m.value.kind == isString && m.value.text == "Deny":
		s.deny, s.said = true, s.name+" denies it"
	default:
		p.fail(m.value.at, `Effect has to be "Allow" or "Deny"`)
	}
	p.principal(&s, n, all)
	m, not := p.either(n, all, "Action")
	for _, v := range p.texts(m) {
		s.actions = append(s.actions, p.action(v))
	}
	s.notAction = not
	m, not = p.either(n, all, "Resource")
	for _, v := range p.texts(m) {
		s.resources = append(s.resources, p.resource(v))
	}
	s.notResource = not
	if m := all["Condition"]; m != nil {
		s.conditions = p.conditions(&m.value)
	}
	return s
}

// either returns the member of a name or of Not and the name, one of which has to be
// there.
func (p *parser) either(n *node, all map[string]*member, name string) (m *member, not bool) {
	m, other := all[name], all["Not"+name]
	switch {
	case m != nil && other != nil:
		p.fail(other.at, "%s and Not%s exclude each other", name, name)
	case m == nil && other == nil:
		p.fail(n.at, "the statement has neither %s nor Not%s", name, name)
	case m == nil:
		return other, true
	}
	return m, false
}

// texts returns the strings of a member that is one or a list of them.
func (p *parser) texts(m *member) []*node {
	if m == nil {
		return nil
	}
	list := []*node{&m.value}
	if m.value.kind == isList {
		list = nil
		for i := range m.value.items {
			list = append(list, &m.value.items[i])
		}
		if len(list) == 0 {
			p.fail(m.value.at, "%s is empty", m.name)
		}
	}
	for _, n := range list {
		if n.kind != isString {
			p.fail(n.at, "%s has to be a string or a list of strings, there is %s", m.name, n.kind)
			return nil
		}
	}
	return list
}

// sid reads the name of a statement, which is its alone.
func (p *parser) sid(m *member) string {
	switch {
	case m == nil:
		return ""
	case m.value.kind != isString || len(m.value.text) > 128:
		p.fail(m.value.at, "Sid has to be a string of at most 128 bytes")
		return ""
	case m.value.text != "" && slices.Contains(p.sids, m.value.text):
		p.fail(m.value.at, "another statement has the Sid %q already", m.value.text)
	}
	p.sids = append(p.sids, m.value.text)
	return m.value.text
}

// actions are those of the service execute-api.
var apiActions = []string{Invoke, "execute-api:InvalidateCache", "execute-api:ManageConnections"}

func (p *parser) action(n *node) pattern {
	if n.text != "*" && !strings.Contains(strings.Trim(n.text, ":"), ":") {
		p.fail(n.at, "%q is no action: write %s", n.text, Invoke)
	}
	c, _ := compile(n.text, wildcards)
	c.fold = true
	known := func(action string) bool { return match(&c, nil, action) }
	if p.ofResource && !slices.ContainsFunc(apiActions, known) {
		p.fail(n.at, "%q is no action of an API: write %s", n.text, Invoke)
	}
	return c
}

func (p *parser) resource(n *node) resource {
	r, err := compileResource(n.text, p.with)
	switch {
	case err != nil:
		p.fail(n.at, "%v", err)
	case p.ofResource && len(r.head) > 1 && !match(&r.head[1], &Request{}, service):
		p.fail(n.at, "%q is no resource of an API: its service is not %s", n.text, service)
	}
	p.variables(&r.own)
	return r
}

func (p *parser) conditions(n *node) (all []condition) {
	if n.kind != isObject {
		p.fail(n.at, "Condition has to be an object, not %s", n.kind)
		return nil
	}
	for i := range n.members {
		m := &n.members[i]
		base, err := parseOperator(m.name)
		switch {
		case err != nil:
			p.fail(m.at, "%v", err)
			continue
		case m.value.kind != isObject || len(m.value.members) == 0:
			p.fail(m.value.at, `%s has to be an object of condition keys, as in {"aws:SourceIp": "203.0.113.0/24"}`, m.name)
			continue
		}
		for j := range m.value.members {
			all = append(all, p.condition(base, m.name, &m.value.members[j]))
		}
	}
	return all
}

func (p *parser) condition(c condition, operator string, m *member) condition {
	k, err := parseKey(m.name)
	if err == nil {
		err = c.bind(k, operator)
	}
	if err != nil {
		p.fail(m.at, "%v", err)
		return c
	}
	p.headers = p.headers || k.of == userAgent || k.of == referer
	list := []node{m.value}
	if m.value.kind == isList {
		list = m.value.items
	}
	if len(list) == 0 {
		p.fail(m.value.at, "%s is compared with nothing", m.name)
	}
	for _, v := range list {
		if v.kind != isString && v.kind != isNumber && v.kind != isBool {
			p.fail(v.at, "%s has to be compared with strings, there is %s", m.name, v.kind)
			continue
		}
		o, err := c.operator.operand(v.text, p.with)
		if err != nil {
			p.fail(v.at, "%v", err)
		}
		p.variables(&o.pattern)
		for i := range o.arn {
			p.variables(&o.arn[i])
		}
		c.operands = append(c.operands, o)
	}
	return c
}

// variables notes what the variables of a pattern need of requests.
func (p *parser) variables(of *pattern) {
	for i := range of.parts {
		v := &of.parts[i]
		p.headers = p.headers || v.kind == variable && (v.key.of == userAgent || v.key.of == referer)
	}
}
