package docs

import (
	"os"
	"strings"
	"testing"
	"time"

	"ringtail/chat"
)

// TestTemplates: the guide's tables are the built-in templates, with what ends an answer, and its example renders.
func TestTemplates(t *testing.T) {
	text, err := os.ReadFile("templates.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, line := range strings.Split(string(text), "\n") {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok && strings.HasPrefix(line, "| `") {
			rows[name] = strings.ReplaceAll(rest, `\|`, "|")
		}
	}
	for _, info := range chat.Builtins() {
		row, ok := rows[info.Name]
		if !ok {
			t.Errorf("templates.md doesn't list %s", info.Name)
			continue
		}
		stop := "`" + info.Stop + "`"
		if info.Stop == "" {
			stop = "EOS"
		}
		if !strings.Contains(row, stop) {
			t.Errorf("%s ends with %s, templates.md says %s", info.Name, stop, row)
		}
		if strings.HasPrefix(info.Name, "colossalchat-") {
			file, _, _ := strings.Cut(strings.TrimPrefix(row, " `"), "`")
			if other, err := chat.Builtin(file); err != nil || other.Name() != info.Name && file != "llama2" {
				t.Errorf("%s isn't called %s too: %v", info.Name, file, err)
			}
		} else if none := strings.HasSuffix(row, "| none |"); none != (info.System == "") {
			t.Errorf("%s: templates.md says of the system message:%s", info.Name, row)
		}
	}
	for name := range rows {
		if !chat.IsBuiltin(name) && !strings.Contains("chat_template system_message end_of_assistant stop_ids", name) {
			t.Errorf("templates.md lists %s, which isn't built in", name)
		}
	}
	example := blocks(string(text), "jinja")[0]
	tmpl, err := chat.New("example", example)
	if err != nil {
		t.Fatal(err)
	}
	r, err := tmpl.RenderSpans([]chat.Message{{Role: "user", Content: "a"}, {Role: "assistant", Content: "b"}}, chat.RenderOptions{EOS: "</s>", Now: time.Unix(0, 0)})
	if err != nil || r.Text != "user: a\nassistant: b</s>\n" || len(r.Trained) != 1 {
		t.Errorf("the example renders %q, %v", r.Text, err)
	}
}
