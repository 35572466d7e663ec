package expr

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// smallFunctions look at each of their arguments once at most, and make nothing that is longer.
var smallFunctions = map[string]bool{
	operators.LogicalAnd: true, operators.LogicalOr: true, operators.LogicalNot: true, operators.Conditional: true,
	operators.Equals: true, operators.NotEquals: true, operators.In: true,
	operators.Less: true, operators.LessEquals: true, operators.Greater: true, operators.GreaterEquals: true,
	operators.Index: true, operators.OptIndex: true, operators.OptSelect: true,
	"startsWith": true, "endsWith": true, "contains": true, "size": true,
}

// isSmall tells an expression without loops, and of small functions alone, which most rules are: what it costs is bounded by its own length and that of what it
// reads. To count that at each evaluation would cost more than the evaluation.
func isSmall(root ast.Expr) bool {
	small := true
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			small = false
		case ast.CallKind:
			small = small && smallFunctions[e.AsCall().FunctionName()]
		}
	}))
	return small
}
