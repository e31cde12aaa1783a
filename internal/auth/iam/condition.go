package iam

import (
	"fmt"
	"strings"
)

// condition is one key of one operator. All conditions of a statement have to hold.
type condition struct {
	name     string // as the document writes it: `StringLike aws:UserAgent`
	operator operator
	set      set
	ifExists bool
	key      key
	operands []operand
}

// set says how several values of a request count.
type set uint8

const (
	alone  set = iota
	forAll     // ForAllValues: each has to fulfil the operator
	forAny     // ForAnyValue: one has to
)

// parseOperator reads the name of an operator with what stands before and behind it.
func parseOperator(name string) (c condition, err error) {
	base := name
	if rest, ok := strings.CutPrefix(base, "ForAllValues:"); ok {
		base, c.set = rest, forAll
	} else if rest, ok := strings.CutPrefix(base, "ForAnyValue:"); ok {
		base, c.set = rest, forAny
	}
	base, c.ifExists = strings.CutSuffix(base, "IfExists")
	operator, ok := operators[base]
	switch {
	case !ok:
		return c, fmt.Errorf("%q is no condition operator", name)
	case operator.family == ofNull && (c.set != alone || c.ifExists):
		return c, fmt.Errorf("%q says nothing: Null stands alone", name)
	case c.set == forAny && c.ifExists:
		return c, fmt.Errorf("%q contradicts itself: without the key ForAnyValue is false and IfExists is true; use one of them", name)
	}
	c.operator = operator
	return c, nil
}

// bind sets the key of a condition.
func (c *condition) bind(k key, operator string) error {
	switch {
	case !c.operator.family.fits(k.class()):
		return fmt.Errorf("%s cannot compare %s", operator, k.name)
	case k.several() && c.set == alone && c.operator.family != ofNull:
		return fmt.Errorf("%s has several values: write ForAnyValue:%s or ForAllValues:%s", k.name, operator, operator)
	}
	c.key = k
	c.name = operator + " " + k.name
	return nil
}

// holds evaluates the condition. What a missing key means is from AWS's pages on
// condition operators and on multivalued context keys.
func (c *condition) holds(q *Request) bool {
	n := c.key.count(q)
	if c.operator.family == ofNull {
		for i := range c.operands {
			if c.operands[i].yes == (n == 0) {
				return true
			}
		}
		return false
	}
	if c.set != alone && n == 1 {
		if v := c.key.value(q, 0); v.class == isText && v.text == "" {
			n = 0 // "an empty data set, such as an empty string"
		}
	}
	if n == 0 {
		return c.set != forAny && (c.ifExists || c.set == forAll || c.operator.negated)
	}
	for i := range n {
		v := c.key.value(q, i)
		matched := c.matches(q, &v)
		switch c.set {
		case forAll:
			if matched == c.operator.negated {
				return false
			}
		case forAny:
			if matched != c.operator.negated {
				return true
			}
		default:
			if matched {
				return !c.operator.negated
			}
		}
	}
	return c.set == forAll || c.set == alone && c.operator.negated
}

// matches compares a value with all those of the policy: one is enough.
func (c *condition) matches(q *Request, v *value) bool {
	for i := range c.operands {
		if c.operator.matches(&c.operands[i], q, v) {
			return true
		}
	}
	return false
}
