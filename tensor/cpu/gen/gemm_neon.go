package main

func gemmNEON(f *asmFile) {}
