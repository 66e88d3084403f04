# SPDX-License-Identifier: MIT
"""From a Python function of numbers to an operation on arrays."""

import ast
import functools
import inspect
import textwrap

from zmlx import _core

# Names that differ between mlx and Metal; the rest is the same.
_FUNCTIONS = {
    "sigmoid": "kk_sigmoid",
    "silu": "kk_silu",
    "gelu": "kk_gelu",
    "gelu_tanh": "kk_gelu_tanh",
    "abs": "abs",
    "maximum": "max",
    "minimum": "min",
    "arctan2": "atan2",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "power": "pow",
}
_BINARY = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
}
_COMPARE = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


class _Translator:
    """A function's statements as the text of a Metal function of floats."""

    def __init__(self, name, arguments):
        self.name = name
        # Names to their C types; a name that is new in a block ends with it.
        self.scopes = [dict.fromkeys(arguments, "float")]

    def fail(self, node, what):
        line = getattr(node, "lineno", 1)
        raise ValueError(f"[jit] {self.name}, line {line}: {what}.")

    def known(self, name):
        return any(name in scope for scope in self.scopes)

    def block(self, statements, depth):
        self.scopes.append({})
        text = "".join(self.statement(each, depth) for each in statements)
        self.scopes.pop()
        return text

    def statement(self, node, depth):
        pad = "  " * depth
        if isinstance(node, ast.Return):
            if node.value is None:
                self.fail(node, "return must give a value, got none")
            return f"{pad}return {self.value(node.value)};\n"
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            return pad + self.assignment(node) + ";\n"
        if isinstance(node, ast.If):
            return self.branch(node, depth)
        if isinstance(node, ast.For):
            return self.loop(node, depth)
        if isinstance(node, ast.Pass):
            return ""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return ""  # a docstring
        self.fail(
            node,
            "statements must be assignments, if, for over range and return, got"
            f" {type(node).__name__}",
        )

    def assignment(self, node):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            self.fail(node, "an assignment must have one name on its left")
        name = targets[0].id
        if node.value is None:
            self.fail(node, f"{name} must be given a value")
        if isinstance(node, ast.AugAssign):
            if not self.known(name):
                self.fail(node, f"{name} must have a value before it changes")
            return f"{name} {self.operator(node)}= {self.value(node.value)}"
        value = self.value(node.value)
        if self.known(name):
            return f"{name} = {value}"
        self.scopes[-1][name] = "float"
        return f"float {name} = {value}"

    def declare_assigned(self, statements):
        """Names given in both branches of an if live on after it."""

        def given(block):
            names = set()
            for each in block:
                if isinstance(each, ast.Assign):
                    names |= {t.id for t in each.targets if isinstance(t, ast.Name)}
                elif isinstance(each, ast.If) and each.orelse:
                    names |= given(each.body) & given(each.orelse)
            return names

        names = sorted(
            name
            for name in given(statements.body) & given(statements.orelse)
            if not self.known(name)
        )
        for name in names:
            self.scopes[-1][name] = "float"
        return names

    def branch(self, node, depth):
        pad = "  " * depth
        names = self.declare_assigned(node)
        text = "".join(f"{pad}float {name} = 0.0f;\n" for name in names)
        text += f"{pad}if ({self.value(node.test)}) {{\n"
        text += self.block(node.body, depth + 1) + pad + "}"
        if node.orelse:
            text += " else {\n" + self.block(node.orelse, depth + 1) + pad + "}"
        return text + "\n"

    def loop(self, node, depth):
        call = node.iter
        is_range = (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id == "range"
        )
        if not is_range or node.orelse or not isinstance(node.target, ast.Name):
            self.fail(node, "a loop must go over range(...)")
        bounds = [self.bound(each) for each in call.args]
        start, stop, step = {
            1: lambda: (0, bounds[0], 1),
            2: lambda: (*bounds, 1),
            3: lambda: tuple(bounds),
        }.get(len(bounds), lambda: self.fail(node, "range must have 1 to 3 bounds"))()
        if step == 0:
            self.fail(node, "the step of range must not be 0")
        name, pad = node.target.id, "  " * depth
        compare = "<" if step > 0 else ">"
        self.scopes.append({name: "int"})
        body = self.block(node.body, depth + 1)
        self.scopes.pop()
        head = f"for (int {name} = {start}; {name} {compare} {stop}; {name} += {step})"
        return f"{pad}{head} {{\n{body}{pad}}}\n"

    def bound(self, node):
        try:
            value = ast.literal_eval(node)
        except ValueError:
            value = None
        if not isinstance(value, int):
            self.fail(node, "bounds of range must be whole numbers in the text")
        return value

    def operator(self, node):
        symbol = _BINARY.get(type(node.op))
        if symbol is None:
            self.fail(
                node,
                "Unsupported binary operator: operators must be + - * / and **, got"
                f" {type(node.op).__name__}",
            )
        return symbol

    def value(self, node):
        method = getattr(self, "value_" + type(node).__name__.lower(), None)
        if method is None:
            self.fail(node, f"values must be arithmetic, got {type(node).__name__}")
        return method(node)

    def value_name(self, node):
        if not self.known(node.id):
            self.fail(node, f"names must be arguments or given before, got {node.id}")
        return node.id

    def value_constant(self, node):
        if isinstance(node.value, bool):
            return "true" if node.value else "false"
        if not isinstance(node.value, int | float):
            self.fail(node, f"constants must be numbers, got {node.value!r}")
        # Python's / of whole numbers is no division of ints.
        text = repr(float(node.value))
        return {"inf": "INFINITY", "nan": "NAN"}.get(text, text + "f")

    def value_binop(self, node):
        if isinstance(node.op, ast.Pow):
            return f"pow({self.value(node.left)}, {self.value(node.right)})"
        left, right = self.value(node.left), self.value(node.right)
        return f"(float({left}) {self.operator(node)} float({right}))"

    def value_unaryop(self, node):
        symbol = {ast.USub: "-", ast.UAdd: "+", ast.Not: "!"}.get(type(node.op))
        if symbol is None:
            self.fail(node, "Unsupported unary operator: must be + - or not")
        return f"({symbol}{self.value(node.operand)})"

    def value_compare(self, node):
        parts, left = [], node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            symbol = _COMPARE.get(type(operator))
            if symbol is None:
                self.fail(node, "comparisons must be < <= > >= == and !=")
            parts.append(f"({self.value(left)} {symbol} {self.value(right)})")
            left = right
        return f"({' && '.join(parts)})"

    def value_boolop(self, node):
        symbol = " && " if isinstance(node.op, ast.And) else " || "
        return f"({symbol.join(f'bool({self.value(v)})' for v in node.values)})"

    def value_ifexp(self, node):
        test, yes, no = map(self.value, (node.test, node.body, node.orelse))
        return f"({test} ? float({yes}) : float({no}))"

    def value_call(self, node):
        function = node.func
        if node.keywords:
            self.fail(node, "arguments of calls must be positional")
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            name = function.attr
            if function.value.id == "metal":
                return f"{name}({', '.join(map(self.value, node.args))})"
        elif isinstance(function, ast.Name):
            name = function.id
        else:
            self.fail(node, "calls must be of functions such as mx.exp")
        arguments = [self.value(each) for each in node.args]
        if name == "where" and len(arguments) == 3:
            return "({} ? float({}) : float({}))".format(*arguments)
        if name == "square" and len(arguments) == 1:
            return f"({arguments[0]} * {arguments[0]})"
        if name == "float" and len(arguments) == 1:
            return f"float({arguments[0]})"
        return f"{_FUNCTIONS.get(name, name)}({', '.join(arguments)})"


def _tree_of(function):
    """The function's definition, or that of a lambda as one."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise ValueError(f"[jit] the text of {function!r} must be at hand.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            return node
    raise ValueError(f"[jit] a function made by def must come, got {function!r}.")


def metal_source(function):
    """The function in Metal, as jit() takes it."""
    tree = _tree_of(function)
    arguments = [each.arg for each in tree.args.args]
    extra = tree.args.vararg or tree.args.kwarg or tree.args.kwonlyargs
    if extra or not arguments:
        raise ValueError(f"[jit] {tree.name} must take one array or more by position.")
    body = _Translator(tree.name, arguments).block(tree.body, 1)
    parameters = ", ".join(f"float {name}" for name in arguments)
    return f"float {tree.name}({parameters}) {{\n{body}}}\n"


def jit(fn):
    """A function of numbers becomes one operation on arrays of any shape.

    Arithmetic, comparisons, if, for over range(...) and mx's functions of floats
    are translated; what is not is a ValueError here. Arrays broadcast; gradients
    come by themselves.
    """
    if not inspect.isfunction(fn):
        raise ValueError(f"[jit] a function must come, got {type(fn).__name__}.")
    source = metal_source(fn)
    operation = _core.jit(source, fn.__name__)
    count = len(operation.input_names)

    @functools.wraps(fn)
    def wrapper(*arrays):
        if len(arrays) != count:
            raise ValueError(
                f"[jit] {fn.__name__} must be given {count} arrays, got {len(arrays)}."
            )
        return operation(*arrays)

    wrapper.source = source
    return wrapper
