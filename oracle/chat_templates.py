"""What transformers' Jinja makes of templates, in two forms. Needs transformers >= 5.17 and jinja2 >= 3.1.

    python oracle/chat_templates.py > chat/jinja/testdata/reference.json

writes the cases of the interpreter's own test: expressions, statements with whitespace control, and chat templates in
the style of published models, written for this test, over random messages. A case whose rendering fails has
"fails": true; the wording of errors isn't compared.

    python oracle/chat_templates.py --golden DIR [--cases N] [--seed S] [NAME=]FILE|FOLDER...

writes DIR/chat_templates.json, a golden folder, of any chat templates: *.jinja, tokenizer_config.json, and the
conversation templates of ColossalChat (applications/ColossalChat/conversation_template), N conversations each, with
tools, documents, reasoning and further variables. NAME= says that Ringtail's built-in template NAME is to render the same;
a conversation template is compared with the built-in one that is called like its file.
Then `RINGTAIL_GOLDEN=DIR go test ./chat -run Golden`. Besides what ../shared/golden/README.md says of the file a case has

    "tools", "documents", "vars", "tokens", "now"   what the template is given besides messages
    "conversation", "builtin"  the conversation template, and the name of the built-in one
    "error"     the text of raise_exception, or "" where the rendering fails by itself
    "trained"   where the template has generation blocks: the [start, end) in code points that
                return_assistant_tokens_mask is made from; for a conversation template, what ColossalChat trains on
"""

import argparse
import copy
import datetime
import json
import os
import random
import re
import sys

import jinja2

import transformers.utils.chat_template_utils as utils

NOW = datetime.datetime(2024, 7, 6, 5, 4, 3)


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


utils.datetime = FixedClock

VARS = {
    "s": "Hello W\u00f6rld \u4f60\u597d",
    "l": [3, 1, 2],
    "d": {"b": 1, "a": [1, 2, {"x": None}], "C": True},
    "n": None,
    "f": 2.5,
    "i": 7,
    "e": "",
    "big": 12345678901234567890,
    "t": "a,b,,c",
    "msgs": [
        {"role": "user", "content": " hi "},
        {"role": "assistant", "content": "yo", "n": 2},
        {"role": "user", "content": 'a<b>"q"'},
    ],
    "tree": [
        {"v": 1, "c": [{"v": 2, "c": []}, {"v": 3, "c": [{"v": 4, "c": []}]}]},
        {"v": 5, "c": []},
    ],
}

EXPRESSIONS = [
    '1+2',
    '7//2',
    '7/2',
    '-7//2',
    '-7%3',
    '7%-3',
    '7.5//2',
    '-7.5%2',
    '2**10',
    '2**-1',
    '2**0.5',
    '-2**2',
    '2**3**2',
    '10**20',
    'big+1',
    'big*big',
    'big//3',
    'big/3',
    '1e16',
    '1e15',
    '1.0',
    '0.1+0.2',
    '1e-5',
    '123456789.123',
    '1/3',
    "3*'ab'",
    "'ab'*3",
    '[1,2]*2',
    '[1]+[2]',
    '(1,)+(2,3)',
    '(1,)',
    '()',
    '1,2',
    'true and 0',
    "0 or 'x'",
    'not n',
    'n is none',
    '1 < 2 < 3',
    '1 < 3 < 2',
    '1 == 1.0',
    'true == 1',
    "'a' < 'b'",
    '[1,2] < [1,3]',
    "'x' in 'xyz'",
    '1 in l',
    '5 not in l',
    "'b' in d",
    "'a' ~ 1 ~ none ~ true ~ 1.5",
    's[0]',
    's[-1]',
    's[1:4]',
    's[::-1]',
    's[::-2]',
    's[10:2:-3]',
    's[-3:]',
    's[100:]',
    'l[::-1]',
    'l[5]',
    'l[-1]',
    'd.b',
    "d['a'][2].x",
    "d.a[2]['x']",
    'd.missing',
    'd.missing.x',
    "d['missing']",
    'undefinedvar',
    'undefinedvar.x',
    'undefinedvar + 1',
    's.upper()',
    's.lower()',
    's.title()',
    's.capitalize()',
    's.swapcase()',
    "'straße'.upper()",
    "'ﬁn'.upper()",
    "'ΑΣ'.lower()",
    "'ǆ'.title()",
    's.split()',
    "s.split(' ')",
    "t.split(',')",
    "t.split(',',1)",
    "t.rsplit(',',1)",
    "' a b  c '.split()",
    "' a b  c '.split(None,1)",
    "' a b  c '.rsplit(None,1)",
    "' a b '.split(None,1)",
    "' a b '.rsplit(None,1)",
    "' a b '.split(None,2)",
    "''.split()",
    "''.split(',')",
    "'a\\nb\\r\\nc\\n'.splitlines()",
    "'a\\nb\\r\\nc'.splitlines(true)",
    "s.startswith('He')",
    "s.startswith(('x','H'))",
    "s.startswith('l',2)",
    "s.endswith('好')",
    "s.find('W')",
    "s.find('zz')",
    "s.rfind('l')",
    "s.index('W')",
    "s.index('zz')",
    "s.count('l')",
    "s.count('')",
    "s.replace('l','L')",
    "s.replace('l','L',1)",
    "s.replace('','-')",
    "s.strip('H好')",
    "'xxabcxx'.strip('x')",
    "'xxabcxx'.lstrip('x')",
    "'xxabcxx'.rstrip('x')",
    "'abc'.removeprefix('a')",
    "'abc'.removesuffix('c')",
    "'42'.zfill(5)",
    "'-42'.zfill(5)",
    "'ab'.ljust(5)~'|'",
    "'ab'.rjust(5)",
    "'ab'.center(5)~'|'",
    "'abc'.center(6,'*')",
    "'abc'.center(8,'*')",
    "'a-b-c'.partition('-')",
    "'a-b-c'.rpartition('-')",
    "'abc'.partition('-')",
    "'abc'.rpartition('-')",
    "','.join(['a','b'])",
    "','.join(l)",
    "'12'.isdigit()",
    "'1²'.isdigit()",
    "'1½'.isnumeric()",
    "'ab'.isalpha()",
    "'a1'.isalnum()",
    "' '.isspace()",
    "'Ab'.istitle()",
    "'AB'.isupper()",
    "'ab1'.islower()",
    "'a\\tb'.expandtabs(4)",
    "'{} {}'.format(1,'x')",
    "'{0}{1}{0}'.format('a','b')",
    "'{a:>5}|{b:<5}|{c:^5}'.format(a='x',b=2,c='y')",
    "'{:05d} {:.2f} {:,} {:x} {:#x} {:e} {:%}'.format(42,3.14159,1234567,255,255,12345.678,0.25)",
    "'{:+d} {: d}'.format(5,5)",
    "'{!r} {!s}'.format('a','b')",
    "'{x[0]} {x}'.format(x=[1,2])",
    "'{{}}'.format()",
    "'{'.format()",
    "'{0.__class__}'.format(1)",
    "'%s-%d-%5.2f-%05d-%x-%%' % ('a',3,2.5,42,255)",
    "'%s' % 'a'",
    "'%s' % l",
    "'%(a)s' % {'a':1}",
    "'%r' % 'a'",
    "'%s %s' % ('a',)",
    "'%s' % ('a','b')",
    "'%-5s|%5s|' % ('a','b')",
    "'%c' % 65",
    "'%g %g %g' % (1.0, 1e10, 0.0001)",
    "'%e' % 12345.678",
    "'%+d % d' % (1,1)",
    "'%.3s' % 'abcdef'",
    "'%*d' % (5,42)",
    'd.items()',
    'd.keys()',
    'd.values()',
    'd.items()|list',
    "d.get('b')",
    "d.get('zz')",
    "d.get('zz',5)",
    "d.pop('b')",
    "d.update({'x':1})",
    'l.append(1)',
    'l.index(2)',
    'l.count(2)',
    'l.pop()',
    '(1,2).index(2)',
    'd.__class__',
    'd.__class__.x',
    's.__class__',
    "''.__class__.__mro__",
    'd',
    'l',
    's',
    '[s]',
    '[\'it\\\'s\', "q\\"", \'a\\nb\', \'é\', \'\\x00\', \'\\u200b\']',
    "{'a':1,2:'b',none:none}",
    '{1:1, true:2, 1.0:3}',
    'range(5)',
    'range(5)|list',
    'range(2,10,3)|list',
    'range(5,0,-2)|list',
    'range(10)[3]',
    'range(10)[2:5]',
    'range(1000000)',
    '3 in range(5)',
    'range(0)',
    'dict(a=1,b=2)',
    "dict({'x':1},y=2)",
    "dict([('a',1)])",
    'namespace(a=1)',
    'namespace(a=1).a',
    'namespace(a=1).b',
    'l|length',
    's|length',
    'undefinedvar|length',
    '5|length',
    'l|sort',
    'l|sort(reverse=true)',
    "['b','A','c']|sort",
    "['b','A','c']|sort(case_sensitive=true)",
    "msgs|sort(attribute='role')|map(attribute='role')|list",
    "msgs|sort(attribute='role,content')|map(attribute='content')|list",
    'd|dictsort',
    'd|dictsort(true)',
    "{'a':3,'b':1}|dictsort(false,'value')",
    "{'a':3,'b':1}|dictsort(by='value',reverse=true)",
    'l|sum',
    "msgs|sum(attribute='n')",
    '[1.5,2]|sum',
    'l|max',
    'l|min',
    '[]|max',
    "['a','B']|max",
    'l|first',
    'l|last',
    "''|first",
    "[]|first|default('z')",
    's|first',
    's|last',
    'l|join',
    "l|join('-')",
    "msgs|join(',',attribute='role')",
    's|upper',
    's|title',
    "'foo-bar (baz) foo_bar'|title",
    's|capitalize',
    's|trim',
    "'  x '|trim",
    "'xxax'|trim('x')",
    'n|trim',
    "s|replace('l','L')",
    "s|replace('l','L',2)",
    "123|replace('2','x')",
    "'a\\nb\\n\\nc'|indent",
    "'a\\nb\\n\\nc'|indent(2,true)",
    "'a\\nb\\n\\nc\\n'|indent(2,blank=true)",
    "'a\\nb'|indent('>>')",
    "'abc'|center(9)~'|'",
    "'foo bar baz qux'|truncate(9)",
    "'foo bar baz qux'|truncate(9,true)",
    "'foo bar baz qux'|truncate(11)",
    "'foo bar baz qux'|truncate(9,false,'..',0)",
    "'a b_c d-e'|wordcount",
    "'%s %s'|format('a','b')",
    "'%(a)s'|format(a=1)",
    "'a b/c?ü'|urlencode",
    "{'a':'b c','d':'é'}|urlencode",
    '\'<a href="x">\'|e',
    "'<a>'|e ~ '<b>'",
    "('<a>'|e) + '<b>'",
    "('<a>'|safe) + '<b>'",
    "'<b>' + ('<a>'|safe)",
    "'<p>a  <b>c</b></p>'|striptags",
    "{'a':1,'b':none,'c':'<'}|xmlattr",
    '-5|abs',
    '(-5)|abs',
    "'42'|int",
    "'42.7'|int",
    "'x'|int",
    "'x'|int(5)",
    "'0x1f'|int(0,16)",
    "'ff'|int(0,16)",
    '3.9|int',
    'none|int',
    "'3.5'|float",
    "'x'|float(1.5)",
    '2.5|round',
    '3.5|round',
    '2.567|round(2)',
    "2.1|round(0,'ceil')",
    "2.9|round(method='floor')",
    '1234|round(-2)',
    '1250|round(-2)',
    '42|round',
    'l|list',
    's|list',
    'd|list',
    'l|reverse|list',
    's|reverse',
    'l|batch(2)|list',
    "l|batch(2,'x')|list",
    '[1,2,3,4,5]|slice(3)|list',
    "[1,2,3,4,5]|slice(3,'x')|list",
    "[1,1,'a','A',2]|unique|list",
    "['a','A']|unique(true)|list",
    "msgs|map(attribute='role')|list",
    "msgs|map(attribute='zz')|list",
    "msgs|map(attribute='zz',default=0)|list",
    "msgs|map(attribute='n',default=0)|sum",
    "l|map('string')|list",
    "['a','b']|map('upper')|join",
    "['a','b']|map('replace','a','z')|list",
    "l|select('odd')|list",
    "l|reject('odd')|list",
    "l|select('>',1)|list",
    'l|select|list',
    "msgs|selectattr('role','equalto','user')|list|length",
    "msgs|selectattr('role','==','user')|map(attribute='content')|list",
    "msgs|rejectattr('role','in',['user'])|list",
    "msgs|selectattr('n')|list",
    "msgs|selectattr('n','defined')|list",
    "msgs|groupby('role')",
    "msgs|groupby('role')|map(attribute='grouper')|list",
    "msgs|map('zzz')|list",
    'd|items|list',
    'undefinedvar|items|list',
    'l|items|list',
    "l|attr('x')",
    "d|attr('b')",
    'd|tojson',
    'd|tojson(indent=2)',
    'd|tojson(indent=4)',
    "d|tojson(separators=(',',':'))",
    'd|tojson(sort_keys=true)',
    "{'b':1,'a':2}|tojson(sort_keys=true)",
    '[1,1.0,1e100,none,true,\'é\\n"\\\\/\\u0001\']|tojson',
    "'é😀\\x7f'|tojson(ensure_ascii=true)",
    "'é😀\\x7f'|tojson",
    '{1:2,none:3,true:4,1.5:6}|tojson',
    '[]|tojson(indent=2)',
    '{}|tojson',
    '[[],{}]|tojson(indent=1)',
    '(1,2)|tojson',
    'undefinedvar|tojson',
    'range(3)|tojson',
    "'<>&\\''|tojson",
    '1 is odd',
    '2 is even',
    '4 is divisibleby 2',
    '4 is divisibleby(3)',
    'undefinedvar is defined',
    'undefinedvar is not defined',
    'n is defined',
    'n is none',
    'n is not none',
    's is string',
    'd is mapping',
    'l is iterable',
    '5 is iterable',
    'l is sequence',
    'd is sequence',
    's is sequence',
    'd.items() is sequence',
    'true is boolean',
    '1 is boolean',
    '1 is number',
    'true is number',
    '1 is integer',
    'true is integer',
    '1.0 is float',
    '1 is float',
    'big is integer',
    'true is true',
    '1 is true',
    'false is false',
    "'abc' is lower",
    "'ABC' is upper",
    "'1' is lower",
    'range is callable',
    's is callable',
    '1 is eq 1',
    '1 is equalto(1)',
    '1 is ne 2',
    '2 is gt 1',
    '2 is ge 2',
    '1 is lt 2',
    '1 is le 0',
    '1 is in l',
    '1 is in [1]',
    '1 is sameas 1',
    '1 is sameas true',
    'none is sameas none',
    "'upper' is filter",
    "'zz' is filter",
    "'odd' is test",
    'x is zz',
    "'a' if true",
    "'a' if false",
    "'a' if false else 'b'",
    "'a' if false else 'b' if false else 'c'",
    "('a' if false) is defined",
    '[1,2,3][1]',
    "{'a':{'b':2}}.a.b",
    "{'items':5}['items']",
    "{'_x':5}._x",
    'l.0',
    'l.5',
    's.0',
    '\'a\' \'b\' "c"',
    "'\\x41\\u00e9\\101\\q'",
    "'a\\",
    "b'",
    '"it\'s"',
    '1_000',
    '0x1f',
    '0b101',
    '0o17',
    '1.5e3',
    '1_0.5',
    "strftime_now('%Y-%m-%d %H:%M:%S %d %b %Y %B %A %a %j %p %I %y %-d %e %U %W %w %u %%')",
    "raise_exception('boom')",
    "raise_exception('a' ~ 1)",
    "cycler('a','b').next()",
    "joiner('|')()",
    'foo()',
    's()',
    's.foo()',
    'none.x',
    'none + 1',
    'none|upper',
    'l|string',
    "1|string ~ 'x'",
    'l == [3,1,2]',
    '(1,2) == [1,2]',
    "{'a':1} == {'a':1.0}",
    'd.keys()|list|tojson',
    's|length > 3 and l',
    'not true or true',
    'not (true or true)',
    '1 + 2 * 3 - 4 / 2',
    '2 * 3 % 4',
    "'a' ~ 1 + 2",
    '1 ~ 2 ~ 3',
    '-l',
    '+5',
    '- -5',
    '--5',
    '[1,2,3][-1:]',
    '[1,2,3][:-1]',
    '[1,2,3][0:2:1]',
    '[1,2,3][::0]',
    "'abc'['x']",
    "'abc'[1.5]",
    "l['a']",
    'l[none]',
    "l[1:'a']",
    'undefinedvar[1:2]',
    'undefinedvar == undefinedvar2',
    'undefinedvar == none',
    'undefinedvar < 1',
    'undefinedvar in l',
    'l in undefinedvar',
    "'a' in undefinedvar",
    "undefinedvar in 'a'",
    "1 in 'a'",
    '1 in 5',
    "1 < 'a'",
    'none < 1',
    '[1] + (2,)',
    "'a' + 1",
    "1 + 'a'",
    "'a' * 'b'",
    '1 / 0',
    '1 // 0',
    '1 % 0',
    '1.0 / 0',
    '0 ** -1',
    '10 ** 400 * 1.0',
    "''|default('x')",
    "''|default('x',true)",
    "undefinedvar|default('x')",
    'undefinedvar|d',
    "none|default('x')",
    "none|default('x',boolean=true)",
    "undefinedvar ~ 'x'",
    "undefinedvar|upper ~ 'x'",
    'undefinedvar|list',
    'undefinedvar|join',
    'undefinedvar|trim',
    'undefinedvar|int',
    'undefinedvar|tojson',
    'undefinedvar|first',
    'undefinedvar|string',
    'undefinedvar|abs',
    '[undefinedvar]',
    'msgs|length if msgs else 0',
    "msgs[-1]['content']|trim|upper",
    "msgs[0].role == 'user' and msgs[1].role == 'assistant'",
    "(msgs|map(attribute='content'))|first",
    'loop',
    'true|string',
    '1.0|int',
    "'  a  '.strip()|length",
    "'a'|foo",
    '1 is foo',
    'd.items()|first',
    'd.values()|list',
    'd|length',
    'd|first',
    'd|last',
    "d|join('-')",
    'd.items()|length',
    '(d.items()|list)[0][1]',
    'l|sort|first',
    'range(3)|last',
    'range(3)|reverse|list',
    'range(3)|sum',
    "msgs|map(attribute='content')|last",
    "l|map('string')|length",
    "'a' is string and 'b' is string",
    "'5' is number or 1 is number",
    "l|select('equalto', 3)|first",
    'l is not string',
    '1 is not odd',
    'l is not sameas l',
    "'abc'|list|reverse|join",
    "'abc' > 'abd'",
    "'Z' < 'a'",
    "'é' > 'z'",
    'big',
    'big is number',
    '-big',
    'big|string|length',
    'big % 7',
    'big == big',
    'big > 1.0',
    '9007199254740993 == 9007199254740992.0',
    '9223372036854775807 + 1',
    '-9223372036854775808 // -1',
    '-9223372036854775807 - 2',
    '3037000500 * 3037000500',
    "'a'.upper().lower().title()",
    's.split()|length',
    "{'a':1}.items()",
    '{}.items()|list',
    "{'a':[1]}['a'][0]",
    '1.5|tojson',
    '1e5',
    '1e22',
    '123456789012345678.0',
    '0.00001',
    '-0.0',
    '1e400',
    "'a\\'b'",
    '\'a\' "b" \'c\' ~ \'d\'',
    "{'a': 'x' 'y'}",
    '(1)',
    '((1,2),3)',
    '[1,2,]',
    "{'a':1,}",
    'range(3,)',
    's[1:][:2]',
    's[1 , 2]',
    "s.split('l')[0]",
    "'x'.join('abc')",
    "'x'.join(d)",
    "''.join(l|map('string'))",
    "'%d' % 3.7",
    "'%x' % 3.7",
    "'%d' % 'a'",
    "'%s' % none",
    "'%s' % undefinedvar",
    "'%5s' % undefinedvar",
    "'a%' % ()",
    "'{:>{w}}'.format('a',w=5)",
    "'{:d}'.format(1.5)",
    "'{:.3}'.format('abcdef')",
    "'{:.3}'.format(3.14159)",
    "'{:g}'.format(1e10)",
    "'{:010.3f}'.format(-3.14159)",
    "'{:<5}|{:>5}'.format(true,none)",
    "'{:>5}'.format(none)",
    "'{a}'.format()",
    "'{}'.format()",
    "'{:,.2f}'.format(1234567.891)",
    "'{:_}'.format(1234567)",
    "'{:*^9}'.format('abc')",
    "'{:b} {:o} {:X} {:c}'.format(5,8,255,65)",
    "i[1:]",
    "'%s' % undefinedvar",
    "'x' % undefinedvar",
    "'x' % l",
    "'x' % 1",
    "l.copy()",
    "['<'|e, '<'|safe]",
    "5|indent",
    "l|indent",
    "undefinedvar|indent",
    "5|truncate",
    "undefinedvar|truncate(5)",
    "'a'|pprint",
]

STATEMENTS = [
    '{% for x in l %}{{ x }}{% endfor %}',
    '{% for x in l %}\n  {{ x }}\n{% endfor %}\nend\n',
    '  {% if true %}\na\n  {% endif %}\nb',
    'a\n  {%- if true -%}\n  b\n  {%- endif +%}\n  c',
    'a\n  {%+ if true %}\nb\n  {%+ endif %}\nc',
    'x {# comment #}\ny\n  {# c2 #}\nz {#- c3 -#}\n w {#+ c4 +#}\n v',
    '{% raw %}{{ x }}{% if %}{% endraw %}\na\n  {%- raw -%}  {{ y }}  {%- endraw -%}  b\n  {% raw %}\n  q\n  {% endraw %}\nz',
    '{{ 1 }}\n{{- 2 -}}\n  {{ 3 }}\n',
    '\n\n',
    'a\n\n',
    'a\r\nb\rc',
    "{{ 'a\r\nb' }}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.cycle('a','b') }}{{ loop.changed(x>1) }}|{% endfor %}",
    '{% for x in [] %}a{% else %}b{% endfor %}',
    '{% for x in l if x > 1 %}{{ x }}/{{ loop.length }}{{ loop.last }} {% else %}b{% endfor %}',
    '{% for x in l if x > 10 %}{{ x }}{% else %}b{% endfor %}',
    '{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}',
    '{% for k, (a, b) in [(1,(2,3))] %}{{ k }}{{ a }}{{ b }}{% endfor %}',
    '{% for a, b in [(1,2,3)] %}{% endfor %}',
    '{% for a, b in [1] %}{% endfor %}',
    '{% for n in tree recursive %}{{ n.v }}@{{ loop.depth }}{{ loop.depth0 }}({{ loop(n.c) }}){% endfor %}',
    '{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %}',
    '{% break %}',
    '{% for x in l %}{% set y = x %}{% endfor %}{{ y }}',
    '{% set y = 0 %}{% for x in l %}{% set y = y + x %}{{ y }}{% endfor %}{{ y }}',
    '{% set ns = namespace(t=0) %}{% for x in l %}{% set ns.t = ns.t + x %}{% endfor %}{{ ns.t }}',
    '{% set a, b = 1, 2 %}{{ a }}{{ b }}',
    '{% set a, ns.x = 1, 2 %}',
    '{% set ns = namespace() %}{% set a, ns.x = 1, 2 %}{{ ns.x }}',
    '{% set x %}hello {{ s }}{% endset %}{{ x|upper }}',
    "{% set x | upper | replace('L','_') %}hello {{ s }}{% endset %}{{ x }}",
    '{% if false %}{% set x = 1 %}{% endif %}{{ x is defined }}',
    '{% if true %}{% set x = 1 %}{% endif %}{{ x }}',
    '{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1,3) }}{{ m(a=5,c=1) }}{{ m() }}',
    '{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1,2,3,x=4) }}',
    '{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1,2) }}',
    '{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1,b=2) }}',
    '{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{{ s }}{% endcall %}',
    '{% macro m(l) %}{% for x in l %}[{{ caller(x, x*2) }}]{% endfor %}{% endmacro %}{% call(a, b=1) m(l) %}{{ a }}-{{ b }}{% endcall %}',
    '{% macro m() %}[{{ caller() }}]{% endmacro %}{{ m() }}',
    '{% macro m() %}x{% endmacro %}{% call m() %}x{% endcall %}',
    '{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}',
    '{% macro m() %}{% set x = 2 %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{{ x }}',
    '{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}',
    '{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(5) }}',
    '{% macro m(a,b) %}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m }}',
    '{% filter upper %}abc{{ s }}{% endfilter %}',
    "{% filter replace('a','b')|upper %}abc{% endfilter %}",
    '{% with a=1, b=2 %}{{ a }}{{ b }}{% endwith %}{{ a }}',
    '{% set a=5 %}{% with a=1, b=a %}{{ a }}{{ b }}{% endwith %}',
    '{% with %}{% set q=1 %}{{ q }}{% endwith %}{{ q }}',
    '{% generation %}a{{ s }}{% endgeneration %}b',
    "{% for m in msgs %}{% if m.role=='assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    '{% generation -%}\n x\n{%- endgeneration %}\nb',
    '{% if 1 %}a{% elif 2 %}b{% else %}c{% endif %}{% if 0 %}a{% elif 2 %}b{% else %}c{% endif %}{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}',
    '{% if x is defined and x %}1{% endif %}',
    '{% print 1, 2 %}',
    '{% foo %}',
    '{% if %}',
    '{% if 1 %}',
    '{% endif %}',
    '{{ 1 ',
    '{{ }}',
    '{% %}',
    '{# a',
    '{% raw %}a',
    "{{ 'a }}",
    '{{ a b }}',
    '{{ ( }}',
    '{{ ) }}',
    '{{ [1,2 }}',
    '{{ $ }}',
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a':{'b':{}}}}}",
    "{{'}}'}}",
    "{% set x = '%}' %}{{ x }}",
    '{{ "{{" }}',
    'a { b } c {x} % } }} %}',
    '{',
    'a{',
    '{{',
    '{% for x in l: %}{{x}}{% endfor %}',
    '{% for m in msgs if not ns is defined %}{{ m.role }}{% endfor %}',
    '{% set ns = namespace(found=false) %}{% for m in msgs if not ns.found %}{{ m.role }}{% set ns.found = true %}{% endfor %}',
    '{% for x in l %}{% set loop2 = loop %}{% for y in l %}{{ loop2.index }}{{ loop.index }} {% endfor %}{% endfor %}',
    "{% for x in 'añ好' %}{{ x }}-{% endfor %}",
    '{% for x in 5 %}{% endfor %}',
    '{% for x in n %}{% endfor %}',
    '{% for x in undefinedvar %}a{% else %}b{% endfor %}',
    "{% for x in l|map('string') %}{{ loop.length }}{{ loop.last }}{{ x }}{% endfor %}",
    "{% set g = l|map('string') %}{{ g|list }}{{ g|list }}",
    "{% if l|select('>',10) %}yes{% endif %}",
    "{% set s2 = s %}{% set s2 = s2 + '!' %}{{ s2 }}",
    '{% set x = namespace(a=1) %}{{ x.a }}{% set x.b = 2 %}{{ x.b }}{{ x }}',
    '{% set d.x = 1 %}',
    '{% set q.x = 1 %}',
    '{% set 1 = 2 %}',
    '{% set none = 2 %}',
    '{% for none in l %}{% endfor %}',
    '{{ 1 if true else }}',
    '{{ x.1.2 }}',
    '{{ [[1,2],[3]].0.1 }}',
    "{{ l[0]|string + 'x' }}",
    '{{ -1|abs }}',
    '{{ 2 + 3|string|length }}',
    "{{ 'a' is string ~ 'b' }}",
    '{{ not false == true }}',
    '{{ 1 in [1] and 2 not in [1] }}',
    '{{ [1,2]|length == 2 }}',
    '{{ l is iterable and l is not string }}',
    "{{ 'x' if l is iterable and l is not string else 'y' }}",
    '{{ a is defined or b is defined }}',
    '{{ d.b is divisibleby 1 }}',
    '{{ 5 is not divisibleby 2 and true }}',
    "{{ ['a', 'b'] | join(', ') if true else '' }}",
    '{%- for x in l -%}\n   {{ x }}\n{%- endfor -%}',
    '{% set x = 1 -%}\n   a',
    '   {%- set x = 1 %}   a',
    'a {% set x = 1 %} b',
    'a\n {% set x = 1 %} b\n {{ x }} {% set x=2 %}\n',
    '\t{% if 1 %}\t\nt\n\t{% endif %}',
    '{% set x = [] %}{% for i in range(3) %}{% set x = x + [i] %}{% endfor %}{{ x }}',
    "{%- macro f(x) -%}\n  {{- x -}}\n{%- endmacro -%}\n{{ f('a') ~ f('b') }}",
    '{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}',
    "{% include 'x' %}",
    '{{ loop }}',
    "{{ range(3)|map('string')|join('-') }}",
    "{{ msgs|map(attribute='content')|map('trim')|join('|') }}",
    '{% for a in l %}{% for b in l if b != a %}{{ a }}{{ b }} {% endfor %}{% endfor %}',
    '{{ caller }}',
    '{% call foo() %}{% endcall %}',
    '{% call foo %}{% endcall %}',
    '{% set x = caller is defined %}{{ x }}',
    '{% for c in s %}{{ loop.changed(c) }}{% endfor %}',
    "{% if msgs[0]['role'] == 'system' %}{% set rest = msgs[1:] %}{% else %}{% set rest = msgs %}{% endif %}{{ rest|length }}",
    '{% for m in msgs[::-1] %}{{ m.role }}{% endfor %}',
    "{% for group in msgs|groupby('role') %}{{ group.grouper }}:{{ group.list|length }} {% endfor %}",
    "{% for role, ms in msgs|groupby('role') %}{{ role }}:{{ ms|length }} {% endfor %}",
    "{{ msgs|selectattr('role','equalto','user')|map(attribute='content')|join(',') }}",
    '{{ dict(a=1)|tojson }}',
    '{%- set x %}\n a\n{% endset -%}\n{{ x }}',
    '{% set x -%} a {%- endset %}[{{ x }}]',
    '{{ "a\nb" }}',
    '{{ 1\n+\n2 }}\n{{ undefinedvar.x }}',
    '{% for x in range(3) %}{{ x }}{% if loop.last %}!{% else %},{% endif %}{% endfor %}',
    '{% for x in l %}{{ x if not loop.first }}{% endfor %}',
    "{% set a = {'x': 1} %}{% set b = dict(a, y=2) %}{{ b }}{{ dict(**a) }}{{ dict(a, **{'z': 3}) }}",
    "{{ '%s %s'|format(*['a','b']) }}",
    "{% macro m(a,b) %}{{a}}{{b}}{% endmacro %}{{ m(*[1,2]) }}{{ m(**{'a':1,'b':2}) }}{{ m(1, *[2]) }}",
    '{% macro m(a, b=1, c) %}{% endmacro %}',
    '{% if true %}{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}{% endif %}',
    '{% for x in l %}{% set y %}{% if x==1 %}{% continue %}{% endif %}{{x}}{% endset %}{{ y }}{% endfor %}',
    '{% for x in l %}{% if x > 1 %}{% continue %}{% endif %}{{ x }}{% else %}b{% endfor %}',
    '{% for x in [1] %}{% continue %}{% else %}b{% endfor %}',
    '{% for x in [1] %}{% break %}{% else %}b{% endfor %}',
    '{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{% else %}b{% endfor %}',
    '{% for loop in l %}{% endfor %}',
    '{% for a, loop in d.items() %}{% endfor %}',
    '{% macro m(caller=none) %}{{ caller }}{% endmacro %}{{ m() }}',
    '{% filter length %}abc{% endfilter %}',
    '{% filter length|string %}abc{% endfilter %}',
]

# Chat templates that use the language the way published ones do.
CHATS = [
    # Tools in the system prompt, dates, and turns for tool results.
    """{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{#- The first system message is shown apart from the others. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    # Grouped tool results, thinking kept after the last question, negative indices and reversed lists.
    """{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    # Selecting and counting messages, tools before the last question.
    """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}{{- ', "id": "none"}' }}{%- else %}{{- ', "id": "' + tool_call.id + '"}' }}{%- endif %}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}{%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}{{- "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("unknown role " ~ message.role) }}
    {%- endif %}
{%- endfor %}
""",
    # Content as parts, a role renamed.
    """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
""",
    # Macros that write types, recursion, indentation.
    """{%- macro kind(spec, level=1) -%}
    {%- if spec.type == "array" -%}
        {{- kind(spec['items'], level + 1) ~ "[]" -}}
    {%- elif spec.type is iterable and spec.type is not string -%}
        {{- spec.type | join(" | ") -}}
    {%- elif spec.oneOf is defined and spec.oneOf is iterable -%}
        {%- for variant in spec.oneOf -%}
            {{- kind(variant) }}{{ " | " if not loop.last -}}
        {%- endfor -%}
    {%- elif spec.type == "object" -%}
        {{- "{\\n" }}
        {%- for name, prop in (spec.properties or {}).items() -%}
            {{- "  " * level + name + ("" if name in (spec.required or []) else "?") + ": " + kind(prop, level + 1) }}
            {%- if prop.enum is defined %}{{- " // " ~ prop.enum | map("string") | join(", ") }}{% endif %}
            {{- ",\\n" if not loop.last else "\\n" }}
        {%- endfor -%}
        {{- "  " * (level - 1) ~ "}" }}
    {%- else -%}
        {{- spec.type or "any" }}
    {%- endif -%}
{%- endmacro -%}
{%- macro content(m) -%}
    {%- if m.content is string %}{{ m.content }}{% elif m.content is none or m.content is not defined %}{{ '' }}
    {%- else %}{% for part in m.content %}{{ part.text if part.type == 'text' else '<' ~ part.type ~ '>' }}{% endfor %}{% endif %}
{%- endmacro -%}
<|start|>system<|message|>Date: {{ strftime_now("%Y-%m-%d") }}
{%- if tools %}
  {{- "\\n# Tools\\nnamespace functions {\\n" }}
  {%- for tool in tools %}
    {%- set f = tool.function %}
    {{- "// " + f.description | replace("\\n", "\\n// ") + "\\n" }}
    {{- "type " + f.name + " = (_: " + kind(f.parameters) + ") => any;\\n" }}
  {%- endfor %}
  {{- "}" }}
{%- endif -%}
<|end|>
{%- for m in messages -%}
    {%- if m.role == 'assistant' and m.tool_calls -%}
        {%- for call in m.tool_calls -%}
            {{- "<|start|>assistant to=functions." ~ call.function.name ~ "<|message|>" ~ call.function.arguments|tojson(separators=(',', ':'), sort_keys=true) ~ "<|call|>" }}
        {%- endfor -%}
    {%- else -%}
        {{- "<|start|>" ~ m.role }}
        {%- filter trim %}<|message|>{{ content(m) | indent(2) }}{% endfilter -%}
        {{- "<|return|>" if loop.last and not add_generation_prompt else "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}
""",
]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather\nat a place.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "enum": ["Paris", 3, None]},
                    "days": {"type": "array", "items": {"type": ["integer", "null"]}},
                    "at": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
                    "either": {"oneOf": [{"type": "string"}, {"type": "number"}]},
                },
                "required": ["place"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}},
]

TEXTS = [
    "", " ", "hi", " Hi there! \n", "\u4f60\u597d\uff0c\u4e16\u754c", "<think>\nwhy\n</think>\n\nso", "a\nb\r\n\tc", "\u00a0x\u2003",
    "<tool_response>1</tool_response>", "{{ x }} {% if %}", "\"q\" \\ 'r'", "\U0001f600\u200d e\u0301", "<|im_end|>",
]


def chat_vars(rng):
    def text():
        return "".join(rng.choice(TEXTS) for _ in range(rng.randint(1, 3)))

    def arguments():
        return {"place": text(), "n": rng.choice([1, 2.5, None, True, -3, 1e20]), "l": [rng.randint(0, 9), text()]}

    messages = []
    if rng.random() < 0.4:
        messages.append({"role": "system", "content": text()})
    for _ in range(rng.randint(1, 3)):
        content = text()
        if rng.random() < 0.15:
            content = [{"type": "image"}, {"type": "text", "text": text()}]
        messages.append({"role": "user", "content": content})
        if rng.random() < 0.3:
            calls = [
                {"id": rng.choice(["abcdefghi", "x"]), "type": "function", "function": {"name": "weather", "arguments": arguments()}}
                for _ in range(rng.choice([1, 1, 2]))
            ]
            messages.append({"role": "assistant", "content": rng.choice([None, "", text()]), "tool_calls": calls})
            for _ in calls:
                messages.append({"role": "tool", "name": "weather", "content": text()})
        answer = {"role": "assistant", "content": text()}
        if rng.random() < 0.2:
            answer["reasoning_content"] = text()
        if rng.random() < 0.9:
            messages.append(answer)
    return {
        "messages": messages,
        "tools": rng.choice([None, None, TOOLS, TOOLS[:1]]),
        "add_generation_prompt": rng.random() < 0.5,
        "bos_token": "<s>",
        "eos_token": "</s>",
        **({"enable_thinking": rng.random() < 0.5} if rng.random() < 0.5 else {}),
    }


def case(template, variables, shown):
    try:
        return {"template": template, **shown, "text": utils._compile_jinja_template(template).render(**copy.deepcopy(variables))}
    except Exception:
        return {"template": template, **shown, "fails": True}


# Plain conversations show the template's own habits, the others what odd contents do to it.
PLAIN = ["Hi there", "How much is 2 + 2?", "It is 4.", "Thanks, and in French?", "C'est quatre.", "Tell me a story\nin two lines."]
WORDS = ["What is a fjord?", "Water between cliffs.", "And a cove?", "A small bay\nwith a beach.", "1+1?", "2", "\u4f60\u597d\uff01", "Caf\u00e9 \U0001f600"]
SPECIALS = [
    {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
]
SCHEMAS = TOOLS + [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Finds <pages> & \"more\".\n\nArgs: q",
            "parameters": {
                "type": "object",
                "properties": {
                    "q": {"type": "string", "description": "What to look for\nin words", "default": "x", "minLength": 1},
                    "n": {"type": "integer", "description": "how many", "minimum": 0, "maximum": 1.5e3},
                    "lang": {"anyOf": [{"type": "string", "enum": ["en", "fr"]}, {"type": "null"}], "nullable": True},
                    "opts": {"type": "object", "additionalProperties": {"type": "boolean"}},
                },
                "required": ["q", "n"],
            },
            "return": {"type": "array", "items": {"type": "object", "properties": {"url": {"type": "string"}}}, "description": "hits"},
        },
    },
]
DOCUMENTS = [
    {"title": "Penguins", "text": "Emperor penguins are the tallest.\nThey swim."},
    {"title": "Caf\u00e9 \"<b>\"", "text": "", "doc_id": 7},
]


def conversation(rng):
    """Random messages, and the variables besides them."""
    plain = rng.random() < 0.5

    def text():
        return rng.choice(PLAIN) if plain else "".join(rng.choice(TEXTS) for _ in range(rng.randint(1, 3)))

    messages = []
    if rng.random() < 0.4:
        messages.append({"role": rng.choice(["system"] * 5 + ["developer"]), "content": text()})
    with_tools = rng.random() < 0.35
    for _ in range(rng.randint(1, 4)):
        content = text()
        if rng.random() < 0.08:
            content = [{"type": "text", "text": text()}]
            if rng.random() < 0.5:
                content.insert(0, {"type": "image"})
        messages.append({"role": "user", "content": content})
        for _ in range(rng.randint(1, 2) if with_tools and rng.random() < 0.6 else 0):
            calls = []
            for k in range(rng.choice([1, 1, 2])):
                arguments = {"q": text(), "n": rng.choice([1, 2.5, None, True, -3, 1e20]), "l": [rng.randint(0, 9), {"t": text()}]}
                if rng.random() < 0.3:
                    arguments = rng.choice([{}, json.dumps(arguments), json.dumps(arguments, indent=1, ensure_ascii=False)])
                calls.append({"id": rng.choice(["abcdefghi", "call_%d" % k]), "type": "function",
                              "function": {"name": rng.choice(["weather", "search"]), "arguments": arguments}})
            m = {"role": "assistant", "content": rng.choice([None, "", text()]), "tool_calls": calls}
            if rng.random() < 0.3:
                m[rng.choice(["reasoning_content", "thinking"])] = text()
            messages.append(m)
            for c in calls:
                result = rng.choice([text(), '{"t": 21.5}', "[1, 2]"])
                messages.append({"role": rng.choice(["tool"] * 9 + ["ipython"]), "content": result, "name": c["function"]["name"],
                                 "tool_call_id": c["id"]})
        answer = {"role": "assistant", "content": text()}
        if rng.random() < 0.2:
            answer[rng.choice(["reasoning_content", "thinking"])] = text()
        messages.append(answer)
    if rng.random() < 0.3:
        messages.pop()
    if rng.random() < 0.05:
        messages.insert(rng.randrange(len(messages) + 1), {"role": rng.choice(["user", "assistant", "system"]), "content": text()})
    given = {}
    if with_tools or rng.random() < 0.1:
        tools = rng.sample(SCHEMAS, rng.randint(1, len(SCHEMAS)))
        given["tools"] = tools if rng.random() < 0.9 else [t["function"] for t in tools]
    if rng.random() < 0.1:
        given["documents"] = DOCUMENTS
    extra = {
        "enable_thinking": rng.random() < 0.5, "thinking": rng.random() < 0.5, "date_string": "03 Feb 2025", "reasoning_effort": "high",
        "builtin_tools": ["browser", "python"], "tools_in_user_message": False, "model_identity": "You are Probe.", "controls": {"length": "short"},
        "citation_mode": "fast", "custom_instructions": text(), "preserve_thinking": True, "xml_tools": SCHEMAS[:1], "conversation_style": "brief",
    }
    names = rng.sample(sorted(extra), rng.randint(1, 5)) if rng.random() < 0.5 else []
    given["vars"] = {n: extra[n] for n in names}
    given["tokens"] = rng.choice(SPECIALS)
    return messages, given


def ordinary(m, template):
    """Whether a published template and Ringtail's own can agree on a message: roles that they don't know, published ones
    drop, and Ringtail's refuse."""
    calls = m["role"] == "tool" or "tool_calls" in m
    return m["role"] in ("system", "user", "assistant", "tool") and isinstance(m["content"], str | None) and (not calls or "tool_calls" in template)


def plain_conversation(rng):
    """Messages in turns, each of other words, for templates that ask for no more."""
    rounds = rng.randint(1, 4)
    texts = [w + (" \n" if rng.random() < 0.1 else "") for w in rng.sample(WORDS, 2 * rounds)]
    messages = [{"role": "assistant" if i % 2 else "user", "content": t} for i, t in enumerate(texts)]
    if rng.random() < 0.3:
        messages.pop()
    if rng.random() < 0.4:
        messages.insert(0, {"role": "system", "content": "Answer briefly."})
    return messages, {"vars": {}, "tokens": SPECIALS[0]}


def conversation_spans(messages, text, end):
    """What ColossalChat trains on: an answer, with a space before it, through the next end_of_assistant. None where a
    content isn't in the text as it was given, which ColossalChat takes for being somewhere else."""
    spans, at = [], 0
    for m in messages:
        start = text.find(m["content"], at)
        if start < 0 or not m["content"]:
            return None
        at = start + len(m["content"])
        if m["role"] == "assistant":
            stop = text.find(end, at)
            at = stop + len(end) if stop >= 0 else at
            spans.append((start - (text[start - 1] == " "), at))
    return spans


def conversation_case(name, config, messages, given, prompt):
    """One case of a conversation template: a chat without a system message gets the template's."""
    shown = messages
    if config.get("system_message") is not None and messages[0]["role"] != "system":
        shown = [{"role": "system", "content": config["system_message"]}] + messages
    end = config["end_of_assistant"]
    if end in ("</s>", "<\uff5cend\u2581of\u2581sentence\uff5c>"):
        given = {**given, "tokens": {"bos_token": "<s>", "eos_token": end}}
    c = golden_case(name, config["chat_template"], shown, given, prompt)
    c.update(messages=messages, conversation=config, builtin="colossalchat-llama2" if name == "llama2" else name)
    if c["rendered"] is not None:
        spans = conversation_spans(shown, c["rendered"], end)
        if spans is not None:
            c["trained"] = spans
    return c


def golden_case(name, template, messages, given, prompt):
    """One case: what the template makes of a conversation."""
    c = {"name": name, "template": template, "messages": messages, "add_generation_prompt": prompt, **given, "now": NOW.isoformat() + "Z",
         "rendered": None, "error": None}
    variables = {**given["tokens"], **given["vars"]}
    try:
        compiled = utils._compile_jinja_template(template)
        c["rendered"], spans = utils._render_with_assistant_indices(
            compiled, messages, given.get("tools"), given.get("documents"), prompt, **variables)
        if re.search(r"\{%-?\s*generation\b", template):
            c["trained"] = spans
    except jinja2.TemplateError as e:
        raised = type(e) is jinja2.TemplateError  # what raise_exception raises; the other classes are Jinja's own
        c["error"] = str(e) if raised else ""
    except Exception:
        c["error"] = ""
    return c


def templates_in(path):
    """Names and texts of the chat templates in a file or folder; instead of a text, a conversation template's object."""
    if os.path.isdir(path):
        for entry in sorted(os.listdir(path)):
            yield from templates_in(os.path.join(path, entry))
        return
    stem, kind = os.path.splitext(os.path.basename(path))
    if kind in (".jinja", ".j2"):
        with open(path, encoding="utf-8", newline="") as f:
            yield stem, f.read()
    elif kind == ".json":
        with open(path, encoding="utf-8") as f:
            config = json.load(f)
        text = config.get("chat_template") if isinstance(config, dict) else None
        if stem == "tokenizer_config":
            stem = os.path.basename(os.path.dirname(os.path.abspath(path)))
        if isinstance(text, str):
            yield stem, config if "end_of_assistant" in config else text
        elif isinstance(text, list):  # several, by name
            for t in text:
                yield stem + "-" + t["name"], t["template"]


def golden(folder, paths, count, seed):
    cases = []
    for path in paths:
        builtin, _, path = path.rpartition("=")
        for name, template in templates_in(path):
            rng = random.Random(f"{seed} {name}")  # each template's cases stay what they are when another is added
            for i in range(count):
                messages, given = plain_conversation(rng) if isinstance(template, dict) or builtin and i % 2 else conversation(rng)
                while builtin and not all(ordinary(m, template) for m in messages):
                    messages, given = conversation(rng)
                prompt = i % 4 > 1 or messages[-1]["role"] != "assistant"
                if isinstance(template, dict):
                    cases.append(conversation_case(name, template, messages, given, prompt))
                else:
                    cases.append(golden_case(name, template, messages, given, prompt))
                if builtin:
                    cases[-1]["builtin"] = builtin
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "chat_templates.json"), "w", encoding="utf-8") as f:
        json.dump(cases, f, ensure_ascii=False, indent=0)
    failed = sum(c["rendered"] is None for c in cases)
    print(f"{len(cases)} cases of {len({c['name'] for c in cases})} templates, {failed} of them errors", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--golden", metavar="DIR", help="write DIR/chat_templates.json of the templates in PATHS")
    parser.add_argument("--cases", type=int, default=40, help="conversations per template")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("paths", nargs="*")
    args = parser.parse_args()
    if args.golden:
        return golden(args.golden, args.paths, args.cases, args.seed)
    rng = random.Random(args.seed)
    cases = [case("{{ " + e + " }}", VARS, {}) for e in EXPRESSIONS]
    cases += [case(s, VARS, {}) for s in STATEMENTS]
    for i, template in enumerate(CHATS):
        for _ in range(12):
            variables = chat_vars(rng)
            c = case(template, variables, {"vars": variables})
            c["template"] = f"#{i}"
            cases.append(c)
    json.dump({"vars": VARS, "chats": CHATS, "cases": cases}, sys.stdout, ensure_ascii=False, indent=0)
    print()


if __name__ == "__main__":
    main()
