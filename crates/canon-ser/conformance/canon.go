// RFC 8785 over a file of documents, one JSON text a line, with Go's standard library.
//
// usage: canon DOCUMENTS [OUTPUT]
//
// Prints the SHA-256 of all canonical forms, each followed by a newline; with OUTPUT, writes them there too.
// encoding/json reads the documents and prints the numbers; order and strings are done here, because there it sorts by
// UTF-8, escapes U+2028, U+2029 (and by default <, > and &), and writes \u0008 and \u000c for \b and \f.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"unicode/utf16"
)

func main() {
	documents, err := os.Open(os.Args[1])
	check(err)
	digest := sha256.New()
	var out io.Writer = digest
	if len(os.Args) > 2 {
		file, err := os.Create(os.Args[2])
		check(err)
		defer file.Close()
		out = io.MultiWriter(digest, file)
	}
	reader := bufio.NewReader(documents)
	for {
		line, err := reader.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		check(err)
		var value interface{}
		check(json.Unmarshal(line, &value))
		var canonical bytes.Buffer
		write(&canonical, value)
		canonical.WriteByte('\n')
		_, err = out.Write(canonical.Bytes())
		check(err)
	}
	fmt.Printf("%x\n", digest.Sum(nil))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(out *bytes.Buffer, value interface{}) {
	switch value := value.(type) {
	case string:
		writeString(out, value)
	case float64:
		if value == 0 {
			value = 0 // Not -0, which encoding/json prints.
		}
		number, err := json.Marshal(value)
		check(err)
		out.Write(number)
	case []interface{}:
		out.WriteByte('[')
		for at, element := range value {
			if at > 0 {
				out.WriteByte(',')
			}
			write(out, element)
		}
		out.WriteByte(']')
	case map[string]interface{}:
		writeObject(out, value)
	default:
		literal, err := json.Marshal(value)
		check(err)
		out.Write(literal)
	}
}

func writeObject(out *bytes.Buffer, members map[string]interface{}) {
	type key struct {
		text  string
		units []uint16
	}
	keys := make([]key, 0, len(members))
	for text := range members {
		keys = append(keys, key{text, utf16.Encode([]rune(text))})
	}
	sort.Slice(keys, func(i, j int) bool {
		left, right := keys[i].units, keys[j].units
		for at := 0; at < len(left) && at < len(right); at++ {
			if left[at] != right[at] {
				return left[at] < right[at]
			}
		}
		return len(left) < len(right)
	})
	out.WriteByte('{')
	for at, key := range keys {
		if at > 0 {
			out.WriteByte(',')
		}
		writeString(out, key.text)
		out.WriteByte(':')
		write(out, members[key.text])
	}
	out.WriteByte('}')
}

var short = map[byte]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\t': `\t`, '\n': `\n`, '\f': `\f`, '\r': `\r`}

func writeString(out *bytes.Buffer, text string) {
	out.WriteByte('"')
	for at := 0; at < len(text); at++ {
		b := text[at]
		if escape, found := short[b]; found {
			out.WriteString(escape)
		} else if b < 0x20 {
			fmt.Fprintf(out, `\u%04x`, b)
		} else {
			out.WriteByte(b)
		}
	}
	out.WriteByte('"')
}
