package ask

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth is how deep objects and lists of a reply may stand in each other.
const maxDepth = 16

// Errors of a reply that is not the JSON it should be.
var (
	errUTF8  = errors.New("is not UTF-8")
	errDeep  = fmt.Errorf("is nested deeper than %d", maxDepth)
	errMore  = errors.New("has something behind its end")
	errKind  = errors.New("is no JSON object")
	errTwice = errors.New("has a member twice")
)

// object reads data as one JSON object in which no member is there twice, at any depth:
// of two the reader could take one and whoever wrote it mean the other. Numbers are
// json.Number.
func object(data []byte) (map[string]any, error) {
	if !json.Valid(data) {
		return nil, errors.New("is no JSON")
	}
	if !utf8.Valid(data) {
		return nil, errUTF8
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := value(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err = d.Token(); err != io.EOF {
		return nil, errMore
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, errKind
	}
	return o, nil
}

// value reads the next value. Its errors quote nothing of the data.
func value(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	token, err := d.Token()
	if err != nil {
		return nil, errors.New("is no JSON")
	}
	switch token {
	case json.Delim('{'):
		o := map[string]any{}
		for d.More() {
			token, err = d.Token()
			if err != nil {
				return nil, errors.New("is no JSON")
			}
			name, ok := token.(string)
			if _, there := o[name]; there || !ok {
				return nil, errTwice
			}
			if o[name], err = value(d, depth+1); err != nil {
				return nil, err
			}
		}
		return o, closing(d)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := value(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, closing(d)
	}
	return token, nil
}

func closing(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errors.New("is no JSON")
	}
	return nil
}
