package iam

import (
	"fmt"
	"strings"
)

// Principals of AWS are read as callers of a gateway:
//
//	"*", {"AWS": "*"}                     everybody, nobody known too
//	{"AWS": "acme"}                       the caller with the id acme
//	{"AWS": "arn:aws:iam::…:user/acme"}   the same
//	{"AWS": "arn:aws:iam::…:role/admin"}  callers with the role admin
//
// Accounts, services and federations are not known to a gateway; a document that
// names one is not understood.

func (p *parser) principal(s *statement, n *node, all map[string]*member) {
	m, not := all["Principal"], all["NotPrincipal"]
	switch {
	case !p.ofResource:
		s.principals.everybody = true
		if m == nil {
			m = not
		}
		if m != nil {
			p.fail(m.at, "%s has no place here: the document is about whoever calls", m.name)
		}
		return
	case m != nil && not != nil:
		p.fail(not.at, "Principal and NotPrincipal exclude each other")
	case m == nil && not == nil:
		p.fail(n.at, `the statement has neither Principal nor NotPrincipal; write "Principal": "*" for everybody`)
		return
	case m == nil:
		m, s.notPrincipal = not, true
		if !s.deny {
			p.fail(m.at, "NotPrincipal needs the Effect Deny: with Allow it would allow nobody known too")
		}
	}
	if m.value.kind == isString {
		if m.value.text != "*" {
			p.fail(m.value.at, `%s has to be "*" or an object such as {"AWS": "acme"}`, m.name)
		}
		s.principals.everybody = true
		return
	}
	members := p.members(&m.value, m.name, "AWS")
	if members == nil {
		return
	}
	if members["AWS"] == nil {
		p.fail(m.value.at, `%s names nobody; write {"AWS": "acme"} or "*"`, m.name)
	}
	for _, v := range p.texts(members["AWS"]) {
		if err := s.principals.add(v.text); err != nil {
			p.fail(v.at, "%v", err)
		}
	}
}

// add reads who is meant by a text.
func (p *principals) add(text string) error {
	if text == "*" {
		p.everybody = true
		return nil
	}
	if strings.ContainsAny(text, "*?") || strings.Contains(text, "${") {
		return fmt.Errorf("%q: a principal is named whole, or is *", text)
	}
	if !strings.HasPrefix(text, "arn:") {
		if text == "" || len(text) == 12 && strings.Trim(text, "0123456789") == "" {
			return fmt.Errorf("%q is an account of AWS, which a gateway does not know; name a caller: acme, or arn:aws:iam::123456789012:user/acme", text)
		}
		p.ids = append(p.ids, text)
		return nil
	}
	parts := strings.SplitN(text, ":", components)
	if len(parts) == components && parts[2] == "iam" {
		kind, name, _ := strings.Cut(parts[components-1], "/")
		name = name[strings.LastIndexByte(name, '/')+1:] // behind the path, which names nobody
		switch {
		case name == "":
		case kind == "user":
			p.ids = append(p.ids, name)
			return nil
		case kind == "role":
			p.roles = append(p.roles, name)
			return nil
		}
	}
	return fmt.Errorf("%q is nobody whom a gateway knows; write arn:aws:iam::ACCOUNT:user/CALLER, arn:aws:iam::ACCOUNT:role/ROLE or the id of a caller", text)
}
