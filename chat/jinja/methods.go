package jinja

// dictMethods are the methods of dict that change nothing.
var dictMethods = map[string]func(in *interp, d *Dict, a *callArgs) (Value, error){
	"keys": func(in *interp, d *Dict, a *callArgs) (Value, error) {
		_, err := a.positional("keys", 0, 0)
		return &view{"dict_keys", d.keys()}, err
	},
	"values": func(in *interp, d *Dict, a *callArgs) (Value, error) {
		_, err := a.positional("values", 0, 0)
		return &view{"dict_values", d.values()}, err
	},
	"items": func(in *interp, d *Dict, a *callArgs) (Value, error) {
		_, err := a.positional("items", 0, 0)
		return &view{"dict_items", d.items()}, err
	},
	"get": func(in *interp, d *Dict, a *callArgs) (Value, error) {
		args, err := a.positional("get", 1, 2)
		if err != nil {
			return nil, err
		}
		v, ok, err := d.get(args[0])
		if err != nil || ok {
			return v, err
		}
		if args[1] == nil {
			return None{}, nil
		}
		return args[1], nil
	},
	"copy": func(in *interp, d *Dict, a *callArgs) (Value, error) {
		_, err := a.positional("copy", 0, 0)
		return d, err // nothing can change the original
	},
}

// itemsMethod is the method index or count of a list or tuple.
func itemsMethod(v Value, items []Value, name string) Value {
	return method(name, func(in *interp, a *callArgs) (Value, error) {
		args, err := a.positional(name, 1, 1)
		if err != nil {
			return nil, err
		}
		count := 0
		for i, item := range items {
			same, err := in.equal(item, args[0])
			if err != nil {
				return nil, err
			}
			if same && name == "index" {
				return Int(i), nil
			}
			if same {
				count++
			}
		}
		if name == "index" {
			return nil, errorf("index(): the value is not in the %s", v.typeName())
		}
		return Int(count), nil
	})
}
