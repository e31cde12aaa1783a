//go:build !linux

package main

import (
	"context"
	"errors"
)

func measure(context.Context) (*measured, error) {
	return nil, errors.New("-real runs on Linux only, as its load generator does")
}
