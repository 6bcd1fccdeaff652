//go:build !unix

package main

func keepPipes() {}
func dieOfPipe() {}
