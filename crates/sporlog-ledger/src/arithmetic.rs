//! Whole-number arithmetic of queries that fails where DataFusion's own would wrap around without a word.
//!
//! [`CheckOverflow`] puts checked functions in the place of `+`, `-` and `*`, and of the sign `-`; [`CheckedSum`] adds up
//! decimals. Decimals, times and divisions are checked by DataFusion; floating-point numbers become infinite.
//!
//! A cluster does not know these functions. For its plans [`CheckOverflow`] has DataFusion's own calculate with decimals, and
//! the results cast back, which fails for a number that has no place in its type.

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, BinaryExpr, ColumnarValue, Expr, ExprSchemable, GroupsAccumulator,
    LogicalPlan, LogicalPlanBuilder, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, binary_expr, cast as cast_expr, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

/// The type in which whole numbers are added up.
const WIDE: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

/// Replaces the operators on whole numbers. Runs after DataFusion has made the types of both sides the same.
#[derive(Debug)]
pub(crate) enum CheckOverflow {
    /// By [`Checked`]; sums are [`CheckedSum`]'s.
    WithFunctions,
    /// By decimals, sums too: the plan has nothing in it that DataFusion does not have.
    #[cfg_attr(not(feature = "ballista"), expect(dead_code))]
    WithDecimals,
}

impl AnalyzerRule for CheckOverflow {
    fn name(&self) -> &str {
        "check_overflow"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let (schema, names) = (merge_schema(&plan.inputs()), NamePreserver::new(&plan));
            let given = plan.schema().clone();
            let rewritten = plan.map_expressions(|expr| {
                // A column is still called `a + b`.
                let name = names.save(&expr);
                let checked = expr.transform_up(|expr| Ok(self.checked(expr, &schema)))?;
                Ok(checked.update_data(|expr| name.restore(expr)))
            })?;
            rewritten.map_data(|plan| match plan.recompute_schema()? {
                plan @ (LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) => narrowed(plan, &given),
                plan => Ok(plan),
            })
        })
        .map(|rewritten| rewritten.data)
    }
}

/// The plan with columns of the types that those of `given` have.
fn narrowed(plan: LogicalPlan, given: &DFSchema) -> Result<LogicalPlan> {
    let types = given.fields().iter().map(|field| field.data_type());
    let columns = plan.schema().iter().zip(types).map(|((table, field), given)| {
        let column = Expr::Column(Column::from((table, field)));
        match field.data_type() == given {
            true => column,
            false => cast_expr(column, given.clone()).alias_qualified(table.cloned(), field.name()),
        }
    });
    let columns: Vec<_> = columns.collect();
    match columns.iter().all(|column| matches!(column, Expr::Column(_))) {
        true => Ok(plan),
        false => LogicalPlanBuilder::from(plan).project(columns)?.build(),
    }
}

impl CheckOverflow {
    fn checked(&self, expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
        let whole = |expr: &Expr| expr.get_type(schema).ok().filter(DataType::is_integer);
        let with_decimals = matches!(self, CheckOverflow::WithDecimals);
        let wide = |expr| cast_expr(expr, WIDE);
        let call = |op, left: Expr, right| match whole(&left).filter(|_| with_decimals) {
            Some(kind) => Transformed::yes(cast_expr(binary_expr(wide(left), op, wide(right)), kind)),
            None => {
                let signature = Signature::any(2, Volatility::Immutable);
                Transformed::yes(ScalarUDF::from(Checked { op, signature }).call(vec![left, right]))
            }
        };
        let sums_whole = |name: &str, args: &[Expr]| {
            with_decimals && name == "sum" && args.iter().all(|arg| whole(arg).is_some())
        };
        match expr {
            Expr::AggregateFunction(mut sum) if sums_whole(sum.func.name(), &sum.params.args) => {
                sum.params.args = sum.params.args.into_iter().map(wide).collect();
                Transformed::yes(Expr::AggregateFunction(sum))
            }
            Expr::WindowFunction(mut sum) if sums_whole(sum.fun.name(), &sum.params.args) => {
                sum.params.args = sum.params.args.into_iter().map(wide).collect();
                Transformed::yes(Expr::WindowFunction(sum))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right })
                if matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
                    && whole(&left).is_some_and(|left| whole(&right) == Some(left)) =>
            {
                call(op, *left, *right)
            }
            Expr::Negative(negated) => match whole(&negated).map(|whole| ScalarValue::new_zero(&whole)) {
                Some(Ok(zero)) => call(Operator::Minus, lit(zero), *negated),
                _ => Transformed::no(Expr::Negative(negated)),
            },
            expr => Transformed::no(expr),
        }
    }
}

/// An operator that fails where its result has no place in its type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_sub",
            _ => "checked_mul",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return exec_err!("two arguments are expected") };
        match self.op {
            Operator::Plus => apply(left, right, add),
            Operator::Minus => apply(left, right, sub),
            _ => apply(left, right, mul),
        }
    }
}

/// `sum`, which adds whole numbers up as decimals, and fails if their sum has no place in 64 bits.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct CheckedSum(Sum);

impl CheckedSum {
    /// Makes an accumulator: of decimals, if whole numbers are to be added up.
    fn widened(
        args: AccumulatorArgs<'_>,
        make: impl FnOnce(AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>>,
    ) -> Result<Box<dyn Accumulator>> {
        let kind = args.return_field.data_type().clone();
        if !kind.is_integer() {
            return make(args);
        }
        let inner = make(AccumulatorArgs { return_field: wide(&args.return_field), ..args })?;
        Ok(Box::new(Widened { inner, kind }))
    }
}

fn wide(field: &FieldRef) -> FieldRef {
    field.as_ref().clone().with_data_type(WIDE).into()
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        CheckedSum::widened(args, |args| self.0.accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        CheckedSum::widened(args, |args| self.0.create_sliding_accumulator(args))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        if !args.return_type().is_integer() {
            return self.0.state_fields(args);
        }
        self.0.state_fields(StateFieldsArgs { return_field: wide(&args.return_field), ..args })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.return_field.data_type().is_integer() && self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.0.create_groups_accumulator(args)
    }
}

/// Adds up decimals for whole numbers of this type.
#[derive(Debug)]
struct Widened {
    inner: Box<dyn Accumulator>,
    kind: DataType,
}

fn widen(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    Ok(values.iter().map(|numbers| cast(numbers, &WIDE)).collect::<Result<_, _>>()?)
}

impl Accumulator for Widened {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&widen(values)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&widen(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let (sum, kind) = (self.inner.evaluate()?, &self.kind);
        sum.cast_to(kind).or_else(|_| exec_err!("Arithmetic overflow: the sum {sum} has no place in {kind}"))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}
