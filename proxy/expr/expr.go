// Package expr compiles and evaluates the CEL expressions of the configuration: claims, access rules, header values. All of them have
// the same language and the same bounds: an expression does no I/O, its length, its cost and its time are limited, and its strings too.
//
// It knows nothing of sessions or requests: who compiles an expression says which names it has. Start at [NewLanguage].
package expr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"
)

const (
	// MaxExpression bounds the length of an expression.
	MaxExpression = 4 << 10
	// MaxOperand bounds the strings that an expression may use. What functions make of longer ones could be longer than memory.
	MaxOperand = 4 << 10

	maxTaken   = time.Second // by one evaluation: not all that takes time has its cost
	maxFirst   = 8           // arguments of first
	maxMessage = 200         // bytes of a message
)

// ErrCost says that an evaluation was stopped, because it cost or took too much.
var ErrCost = errors.New("the expression costs too much")

// CompileError is the first thing that is wrong with an expression.
type CompileError struct {
	// Line and Column count from 1, within the expression; they are 0 where the whole of it is meant.
	Line, Column int
	// Message says what is wrong. It holds parts of the expression, and nothing else.
	Message string
}

// Error is line, column and message.
func (e *CompileError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Options say what expressions of one kind may use, beside the standard functions and macros, optional values, the string functions,
// and first.
type Options struct {
	// Variables are the names that expressions have, with their types. A name may hold dots: request.method.
	Variables map[string]*cel.Type
	// AnyName gives every other name the type dyn instead of refusing it.
	AnyName bool
	// Functions are further functions.
	Functions []cel.EnvOption
	// Cost bounds one evaluation, in CEL's units: a million are about a tenth of a second. It is not counted where the expression's length bounds it. Required.
	Cost uint64
}

// Language compiles expressions of one kind. It is safe for concurrent use.
type Language struct {
	env *cel.Env
	o   Options
}

// NewLanguage prepares the compiling of expressions. An error is a mistake in o.
func NewLanguage(o Options) (*Language, error) {
	if o.Cost == 0 {
		return nil, errors.New("expr: no limit of cost")
	}
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(MaxExpression),
		cel.CustomTypeAdapter(adapter{types.DefaultTypeAdapter}),
		cel.CrossTypeNumericComparisons(true),
		cel.OptionalTypes(),
		ext.Strings(),
		firstFunction(),
	}
	for _, name := range slices.Sorted(maps.Keys(o.Variables)) {
		options = append(options, cel.Variable(name, o.Variables[name]))
	}
	env, err := cel.NewEnv(append(options, o.Functions...)...)
	if err != nil {
		return nil, fmt.Errorf("expr: %w", err)
	}
	return &Language{env: env, o: o}, nil
}

// Program is an expression that has been compiled. It never changes and is safe for concurrent use.
type Program struct {
	program cel.Program
	small   bool // what it costs is bounded by its length
	text    string
	root    ast.Expr
	output  *cel.Type
}

// Compile checks the types of an expression and makes a program of it. Its errors are [CompileError]s.
func (l *Language) Compile(text string) (*Program, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &CompileError{Message: "is empty"}
	}
	env := l.env
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, complaint(issues)
	}
	if l.o.AnyName {
		var names []cel.EnvOption
		for _, name := range freeNames(parsed) {
			if _, known := env.CELTypeProvider().FindIdent(name); !known && l.o.Variables[name] == nil {
				names = append(names, cel.Variable(name, cel.DynType))
			}
		}
		var err error
		if env, err = env.Extend(names...); err != nil {
			return nil, &CompileError{Message: Printable(err.Error())}
		}
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, complaint(issues)
	}
	p := &Program{text: text, root: checked.NativeRep().Expr(), output: checked.OutputType()}
	p.small = isSmall(p.root)
	var watched []cel.ProgramOption
	if !p.small {
		watched = []cel.ProgramOption{cel.CostLimit(l.o.Cost), cel.InterruptCheckFrequency(10)}
	}
	var err error
	if p.program, err = env.Program(checked, watched...); err != nil {
		return nil, &CompileError{Message: Printable(err.Error())}
	}
	return p, nil
}

// complaint is the first thing that is wrong with an expression.
func complaint(issues *cel.Issues) error {
	for _, e := range issues.Errors() {
		// CEL's columns count from 0; its lines from 1.
		return &CompileError{Line: e.Location.Line(), Column: e.Location.Column() + 1, Message: Printable(e.Message)}
	}
	return &CompileError{Message: Printable(issues.Err().Error())}
}

// Output is the type of what the program yields.
func (p *Program) Output() *cel.Type { return p.output }

// Eval evaluates the program: if that may take long at all, at most one second, whatever ctx allows, since an answer must not depend on how slow something before it
// was. An error is [ErrCost], or says what failed: in words of CEL's and of the expression, without the values of variables, since logs name nobody.
func (p *Program) Eval(ctx context.Context, variables interpreter.Activation) (ref.Val, error) {
	out, err := p.eval(ctx, variables)
	if err == ErrCost {
		return nil, err
	}
	if err != nil {
		return nil, errors.New(p.withoutValues(err.Error()))
	}
	return out, nil
}

func (p *Program) eval(ctx context.Context, variables interpreter.Activation) (ref.Val, error) {
	if p.small {
		out, _, err := p.program.Eval(variables)
		return out, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxTaken)
	defer cancel()
	out, _, err := p.program.ContextEval(ctx, variables)
	if _, cancelled := errors.AsType[interpreter.EvalCancelledError](err); cancelled || ctx.Err() != nil {
		return nil, ErrCost
	}
	return out, err
}

// withoutValues takes out of CEL's words about a failed evaluation what may be the value of a variable: whatever is quoted, and a key that the expression
// does not write out itself.
func (p *Program) withoutValues(message string) string {
	const noKey = "no such key"
	if _, key, ok := strings.Cut(message, noKey+": "); ok && !strings.Contains(p.text, key) {
		return noKey
	}
	if i := strings.IndexAny(message, "\"`"); i >= 0 {
		message = message[:i] + "…"
	}
	return Printable(message)
}

// Reads reports whether the program uses a variable at all.
func (p *Program) Reads(variable string) bool {
	found := false
	p.visit(variable, func(ast.Expr) { found = true })
	return found
}

// Members returns the members of a variable that the program reads, each by a name that it writes out: v.a, v["a"], has(v.a), v.?a,
// "a" in v. A program that uses the variable in any other way has a [CompileError], since nobody could say what it reads.
func (p *Program) Members(variable string) ([]string, error) {
	total, named := 0, 0
	names := map[string]bool{}
	p.visit(variable, func(ast.Expr) { total++ })
	isVariable := func(e ast.Expr) bool {
		return e.Kind() == ast.IdentKind && strings.TrimPrefix(e.AsIdent(), ".") == variable
	}
	note := func(of, key ast.Expr) {
		if !isVariable(of) || key.Kind() != ast.LiteralKind {
			return
		}
		if name, ok := key.AsLiteral().(types.String); ok {
			names[string(name)] = true
			named++
		}
	}
	ast.PostOrderVisit(p.root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			if s := e.AsSelect(); isVariable(s.Operand()) {
				names[s.FieldName()] = true
				named++
			}
		case ast.CallKind:
			c := e.AsCall()
			args := c.Args()
			if len(args) != 2 {
				return
			}
			switch c.FunctionName() {
			case operators.Index, operators.OptIndex, operators.OptSelect:
				note(args[0], args[1])
			case operators.In:
				note(args[1], args[0])
			}
		}
	}))
	if named < total {
		return nil, &CompileError{Message: fmt.Sprintf(`uses %s as a whole: write the name of each member, as in %s.level or %s["level"]`, variable, variable, variable)}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// visit calls f for each use of a variable.
func (p *Program) visit(variable string, f func(ast.Expr)) {
	ast.PostOrderVisit(p.root, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.IdentKind && strings.TrimPrefix(e.AsIdent(), ".") == variable {
			f(e)
		}
	}))
}

// freeNames returns the names that an expression uses, local ones too: to declare those as well does no harm.
func freeNames(parsed *cel.Ast) []string {
	names := map[string]bool{}
	ast.PostOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.IdentKind {
			if name := strings.TrimPrefix(e.AsIdent(), "."); !strings.ContainsAny(name, "@.") {
				names[name] = true
			}
		}
	}))
	return slices.Sorted(maps.Keys(names))
}

// firstFunction declares first(a, b, …): the first of its arguments that is there. One that fails, because a claim is missing for
// instance, that is null or an empty string is not.
func firstFunction() cel.EnvOption {
	var overloads []cel.FunctionOpt
	for n := 2; n <= maxFirst; n++ {
		overloads = append(overloads, cel.Overload(fmt.Sprintf("postern_first_%d", n), slices.Repeat([]*cel.Type{cel.DynType}, n), cel.DynType,
			cel.OverloadIsNonStrict(), cel.FunctionBinding(first)))
	}
	// Bindings of two arguments are of another kind.
	overloads[0] = cel.Overload("postern_first_2", []*cel.Type{cel.DynType, cel.DynType}, cel.DynType,
		cel.OverloadIsNonStrict(), cel.BinaryBinding(func(a, b ref.Val) ref.Val { return first(a, b) }))
	return cel.Function("first", overloads...)
}

func first(args ...ref.Val) ref.Val {
	for _, v := range args {
		if o, ok := v.(*types.Optional); ok && o.HasValue() {
			v = o.GetValue()
		} else if ok {
			continue
		}
		if !types.IsUnknownOrError(v) && v != types.NullValue && v != types.String("") {
			return v
		}
	}
	return types.NullValue
}

// adapter shows claims to expressions.
type adapter struct{ types.Adapter }

// NativeToValue is [types.Adapter]'s, but numbers keep all their digits, and strings that are too long to name anything are not shown.
func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case string:
		if len(v) > MaxOperand {
			return types.NewErr("a string of more than %d bytes", MaxOperand)
		}
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return types.Int(i)
		}
		if u, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return types.Uint(u)
		}
		f, err := v.Float64()
		switch {
		case len(v) > MaxOperand || err != nil:
			return types.NewErr("a number that is out of range")
		case !strings.ContainsAny(v.String(), ".eE"): // two names must not become one by rounding
			return types.String(v)
		}
		return types.Double(f)
	case map[string]any:
		return types.NewStringInterfaceMap(a, v)
	case []any:
		return types.NewDynamicList(a, v)
	}
	return a.Adapter.NativeToValue(v)
}

// Printable cuts a message short and takes out what could disturb a log or a terminal.
func Printable(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
