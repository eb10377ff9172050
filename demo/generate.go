package demo

import (
	"fmt"
	"strings"

	"ringtail/rng"
)

// The generated part of the corpus: drills of which a small model sees enough to get the hang,
// where writing each one by hand would teach no more. A template and its fillings give a
// family; all of a family's dialogues are different. Everything is drawn
// from one fixed stream: the corpus is the same on every machine and for every seed.

// drill is one generated dialogue.
type drill struct {
	category, prompt, answer string
}

var englishNumbers = strings.Fields("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty")

var chineseNumbers = strings.Fields("零 一 二 三 四 五 六 七 八 九 十 十一 十二 十三 十四 十五 十六 十七 十八 十九 二十")

// words are pairs of an English and a Chinese word that say the same.
var words = [][2]string{{"cat", "猫"}, {"dog", "狗"}, {"bird", "鸟"}, {"fish", "鱼"}, {"horse", "马"}, {"tree", "树"}, {"flower", "花"},
	{"apple", "苹果"}, {"bread", "面包"}, {"water", "水"}, {"tea", "茶"}, {"milk", "牛奶"}, {"rice", "米饭"}, {"book", "书"}, {"door", "门"},
	{"window", "窗户"}, {"table", "桌子"}, {"chair", "椅子"}, {"car", "汽车"}, {"train", "火车"}, {"friend", "朋友"}, {"teacher", "老师"},
	{"school", "学校"}, {"doctor", "医生"}, {"rain", "雨"}, {"snow", "雪"}, {"sun", "太阳"}, {"moon", "月亮"}, {"star", "星星"}, {"river", "河"},
	{"mountain", "山"}, {"red", "红色"}, {"green", "绿色"}, {"white", "白色"}, {"happy", "高兴"}, {"tired", "累"}}

var opposites = [][4]string{{"big", "small", "大", "小"}, {"hot", "cold", "热", "冷"}, {"long", "short", "长", "短"}, {"fast", "slow", "快", "慢"},
	{"new", "old", "新", "旧"}, {"light", "dark", "亮", "暗"}, {"high", "low", "高", "低"}, {"near", "far", "近", "远"}, {"early", "late", "早", "晚"},
	{"happy", "sad", "高兴", "难过"}, {"easy", "difficult", "容易", "难"}, {"full", "empty", "满", "空"}, {"clean", "dirty", "干净", "脏"},
	{"open", "closed", "开", "关"}, {"wet", "dry", "湿", "干"}, {"heavy", "light", "重", "轻"}}

var englishDays = strings.Fields("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

var chineseDays = strings.Fields("星期一 星期二 星期三 星期四 星期五 星期六 星期日")

var plurals = [][2]string{{"cat", "cats"}, {"box", "boxes"}, {"child", "children"}, {"mouse", "mice"}, {"foot", "feet"}, {"baby", "babies"},
	{"leaf", "leaves"}, {"glass", "glasses"}, {"man", "men"}, {"city", "cities"}, {"bus", "buses"}, {"tooth", "teeth"}}

// drills makes the generated dialogues, at most most of each family.
func drills(most int) []drill {
	var out []drill
	s := rng.New(0, "demo/drills", 0)
	family := func(list []drill) {
		s.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		out = append(out, list[:min(most, len(list))]...)
	}
	family(sums())
	family(differences())
	family(translations())
	family(opposite())
	family(days())
	family(comparisons())
	family(plural())
	family(successors())
	return out
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func sums() (out []drill) {
	for a := 1; a <= 10; a++ {
		for b := 1; b <= 10; b++ {
			if (a+b)%2 == 0 {
				out = append(out, drill{"arithmetic", fmt.Sprintf("What is %s plus %s?", englishNumbers[a], englishNumbers[b]),
					fmt.Sprintf("%s plus %s is %s.", capital(englishNumbers[a]), englishNumbers[b], englishNumbers[a+b])})
			} else {
				out = append(out, drill{"arithmetic", fmt.Sprintf("%s加%s等于几？", chineseNumbers[a], chineseNumbers[b]),
					fmt.Sprintf("%s加%s等于%s。", chineseNumbers[a], chineseNumbers[b], chineseNumbers[a+b])})
			}
		}
	}
	return out
}

func differences() (out []drill) {
	for a := 3; a <= 12; a++ {
		for b := 1; b < a; b++ {
			if (a+b)%2 == 0 {
				out = append(out, drill{"arithmetic", fmt.Sprintf("How much is %s minus %s?", englishNumbers[a], englishNumbers[b]),
					fmt.Sprintf("%s minus %s is %s.", capital(englishNumbers[a]), englishNumbers[b], englishNumbers[a-b])})
			} else {
				out = append(out, drill{"arithmetic", fmt.Sprintf("%s减%s是多少？", chineseNumbers[a], chineseNumbers[b]),
					fmt.Sprintf("%s减%s等于%s。", chineseNumbers[a], chineseNumbers[b], chineseNumbers[a-b])})
			}
		}
	}
	return out
}

func translations() (out []drill) {
	for i, w := range words {
		en, zh := w[0], w[1]
		if i%2 == 0 {
			out = append(out, drill{"translation", fmt.Sprintf("How do you say %q in Chinese?", en), fmt.Sprintf("In Chinese, %q is %s.", en, zh)})
		} else {
			out = append(out, drill{"translation", fmt.Sprintf("“%s”用英语怎么说？", zh), fmt.Sprintf("“%s”用英语说是 %s。", zh, en)})
		}
	}
	return out
}

func opposite() (out []drill) {
	for _, o := range opposites {
		out = append(out,
			drill{"language", fmt.Sprintf("What is the opposite of %s?", o[0]), fmt.Sprintf("The opposite of %s is %s.", o[0], o[1])},
			drill{"language", fmt.Sprintf("“%s”的反义词是什么？", o[2]), fmt.Sprintf("“%s”的反义词是“%s”。", o[2], o[3])})
	}
	return out
}

func days() (out []drill) {
	for i := range 7 {
		next := (i + 1) % 7
		out = append(out,
			drill{"facts", fmt.Sprintf("Which day comes after %s?", englishDays[i]), fmt.Sprintf("After %s comes %s.", englishDays[i], englishDays[next])},
			drill{"facts", fmt.Sprintf("Which day comes before %s?", englishDays[next]), fmt.Sprintf("Before %s comes %s.", englishDays[next], englishDays[i])},
			drill{"facts", fmt.Sprintf("%s的后一天是星期几？", chineseDays[i]), fmt.Sprintf("%s的后一天是%s。", chineseDays[i], chineseDays[next])},
			drill{"facts", fmt.Sprintf("%s的前一天是星期几？", chineseDays[next]), fmt.Sprintf("%s的前一天是%s。", chineseDays[next], chineseDays[i])})
	}
	return out
}

func comparisons() (out []drill) {
	for a := 1; a <= 12; a++ {
		for b := 1; b <= 12; b++ {
			if a == b || (a*7+b*5)%3 != 0 {
				continue
			}
			if (a+b)%2 == 0 {
				out = append(out, drill{"arithmetic", fmt.Sprintf("Which is larger, %d or %d?", a, b), fmt.Sprintf("%d is larger than %d.", max(a, b), min(a, b))})
			} else {
				out = append(out, drill{"arithmetic", fmt.Sprintf("%d和%d哪个大？", a, b), fmt.Sprintf("%d比%d大。", max(a, b), min(a, b))})
			}
		}
	}
	return out
}

func plural() (out []drill) {
	for _, p := range plurals {
		out = append(out, drill{"language", fmt.Sprintf("What is the plural of %s?", p[0]), fmt.Sprintf("The plural of %s is %s.", p[0], p[1])})
	}
	return out
}

func successors() (out []drill) {
	for n := 1; n <= 40; n++ {
		if n%2 == 0 {
			out = append(out, drill{"arithmetic", fmt.Sprintf("Which number comes after %d?", n), fmt.Sprintf("After %d comes %d.", n, n+1)})
		} else {
			out = append(out, drill{"arithmetic", fmt.Sprintf("%d后面的数是几？", n), fmt.Sprintf("%d后面的数是%d。", n, n+1)})
		}
	}
	return out
}
