package config

import "testing"

func BenchmarkFormat10000Routes(b *testing.B) {
	src := manyRoutes(10_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Format(src); err != nil {
			b.Fatal(err)
		}
	}
}
