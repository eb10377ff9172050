// Command tokenizercompare is Ringtail's side of bench/peers/tokenizer_compare.py.
// It encodes on one thread, and answers requests, one a line:
//
//	load FILE   -> "ok" once the tokenizer.json is read
//	texts FILE  -> "ok N": FILE is a JSON array of N strings
//	run REPS    -> seconds that encoding all texts REPS times took, of processor
//	               time, and the number of tokens
//	ids         -> the ids of all texts as a JSON array of arrays
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"ringtail/tokenizer"
)

func main() {
	runtime.GOMAXPROCS(1)
	in := bufio.NewScanner(os.Stdin)
	var b bench
	for in.Scan() {
		command, argument, _ := strings.Cut(in.Text(), " ")
		answer, err := b.do(command, argument)
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Println(answer)
	}
}

type bench struct {
	tokenizer *tokenizer.Tokenizer
	texts     []string
}

func (b *bench) do(command, argument string) (string, error) {
	switch command {
	case "load":
		t, err := tokenizer.Load(argument)
		b.tokenizer = t
		return "ok", err
	case "texts":
		data, err := os.ReadFile(argument)
		if err != nil {
			return "", err
		}
		b.texts = nil
		err = json.Unmarshal(data, &b.texts)
		return fmt.Sprintf("ok %d", len(b.texts)), err
	case "run":
		reps, err := strconv.Atoi(argument)
		if err != nil {
			return "", err
		}
		start, before, tokens := time.Now(), cpuTime(), 0
		for range reps {
			for _, s := range b.texts {
				tokens += len(b.tokenizer.Encode(s, tokenizer.EncodeOptions{AddSpecial: true}))
			}
		}
		return fmt.Sprintf("%.9f %.9f %d", time.Since(start).Seconds(), cpuTime()-before, tokens), nil
	case "ids":
		ids := make([][]int32, len(b.texts))
		for i, s := range b.texts {
			ids[i] = b.tokenizer.Encode(s, tokenizer.EncodeOptions{AddSpecial: true})
		}
		out, err := json.Marshal(ids)
		return string(out), err
	}
	return "", fmt.Errorf("unknown request %q", command)
}
