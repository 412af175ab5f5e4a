//! Carrying out a plan's steps.

use std::borrow::Cow;

use super::plan::{Plan, PoolSpec, Step};
use super::workspace::Workspace;
use super::{Error, NodeId, Op};
use crate::kernels::{self, Conv2d, Matrix, MatrixMut, MaxPool, Padding, Winograd};
use crate::tensor::{DataType, Tensor, Values, shape_text};

/// Whether the run has all rows or some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Whole,
    /// A step that would need the other rows too must stop the run.
    Rows,
}

/// Why a run ended early.
#[derive(Debug)]
pub(super) enum Stop {
    MixesRows,
    Failed(Error),
}

/// The values of a run: each node's, as long as somebody will read it.
struct Run<'a> {
    plan: &'a Plan,
    mode: Mode,
    values: Vec<Option<Tensor>>,
    uses: Vec<usize>,
    workspace: &'a mut Workspace,
}

pub(super) fn run(
    plan: &Plan,
    values: Vec<Tensor>,
    mode: Mode,
    workspace: &mut Workspace,
) -> Result<Vec<Tensor>, Stop> {
    let mut run = Run {
        plan,
        mode,
        values: vec![None; plan.graph.nodes.len()],
        uses: plan.uses.clone(),
        workspace,
    };
    for (&feed, value) in plan.feeds.iter().zip(values) {
        run.values[feed.0] = Some(value);
    }
    for step in &plan.steps {
        let value = run.step(step)?;
        run.values[step.result.0] = Some(value);
        for &input in &step.inputs {
            run.release(input);
        }
    }
    let answers = plan.fetches.iter().map(|&id| run.take(id)).collect();
    for value in run.values.into_iter().flatten() {
        recycle(run.workspace, value);
    }
    Ok(answers)
}

fn recycle(workspace: &mut Workspace, tensor: Tensor) {
    if let Values::Float(buffer) = tensor.into_values() {
        workspace.give(buffer);
    }
}

impl Run<'_> {
    /// One reader less; the last one's value is memory for others.
    fn release(&mut self, id: NodeId) {
        self.uses[id.0] = self.uses[id.0].saturating_sub(1);
        if self.uses[id.0] == 0
            && let Some(value) = self.values[id.0].take()
        {
            recycle(self.workspace, value);
        }
    }

    fn value(&self, id: NodeId) -> &Tensor {
        self.values[id.0]
            .as_ref()
            .or_else(|| self.plan.graph.constant(id))
            .expect("invariant: steps stand behind the steps that they read")
    }

    /// A value to change or give away: the value itself for its last reader, else a copy.
    fn take(&mut self, id: NodeId) -> Tensor {
        if self.uses[id.0] == 1
            && let Some(value) = self.values[id.0].take()
        {
            return value;
        }
        let copy = self.value(id).clone();
        self.uses[id.0] = self.uses[id.0].saturating_sub(1);
        copy
    }

    fn fail(&self, step: &Step, reason: impl Into<String>) -> Stop {
        let node = self.plan.graph.node(step.node);
        Stop::Failed(Error::Node {
            node: node.name.clone(),
            op: node.op.name(),
            reason: reason.into(),
        })
    }

    fn is_constant(&self, id: NodeId) -> bool {
        self.values[id.0].is_none()
    }

    fn floats(&self, step: &Step, input: usize) -> Result<&[f32], Stop> {
        let value = self.value(step.inputs[input]);
        value.as_floats().ok_or_else(|| {
            self.fail(
                step,
                format!("input {input} is of type {}, not float", value.data_type()),
            )
        })
    }

    /// The bias that belongs to a step, `columns` long.
    fn bias(&self, step: &Step, columns: usize) -> Result<Option<&[f32]>, Stop> {
        let Some(id) = step.tail.bias else {
            return Ok(None);
        };
        match self.value(id).as_floats() {
            Some(bias) if bias.len() == columns => Ok(Some(bias)),
            _ => Err(self.fail(step, format!("the bias behind it is not {columns} floats"))),
        }
    }

    fn step(&mut self, step: &Step) -> Result<Tensor, Stop> {
        match &self.plan.graph.node(step.node).op {
            &Op::Conv2D { strides, padding } => self.convolve(step, strides, padding),
            &Op::MatMul {
                transpose_a,
                transpose_b,
            } => self.multiply(step, transpose_a, transpose_b),
            &Op::MaxPool {
                window,
                strides,
                padding,
            } => self.pool(
                step,
                PoolSpec {
                    window,
                    strides,
                    padding,
                },
            ),
            Op::Reshape => self.reshape(step),
            Op::BiasAdd | Op::Add => self.add(step),
            Op::Relu => self.map(step, |values, _| {
                for value in values {
                    *value = value.max(0.0);
                }
            }),
            Op::Softmax => {
                self.check_last_dimension(step)?;
                self.map(step, kernels::softmax_in_place)
            }
            &Op::ArgMax { output } => self.arg_max(step, output),
            &Op::Cast { to } => {
                let value = cast(self.value(step.inputs[0]), to);
                Ok(value)
            }
            Op::Identity | Op::Placeholder { .. } | Op::Const(_) => {
                unreachable!("the plan makes no step of these")
            }
        }
    }

    fn tensor(&self, step: &Step, shape: Vec<usize>, values: Values) -> Result<Tensor, Stop> {
        Tensor::new(shape, values).map_err(|error| self.fail(step, error.to_string()))
    }

    /// Changes the first input where it stands, row by row of the last dimension.
    fn map(&mut self, step: &Step, change: impl Fn(&mut [f32], usize)) -> Result<Tensor, Stop> {
        self.floats(step, 0)?;
        let id = step.inputs[0];
        let value = self.take(id);
        // `take` counted this reader; the caller will count it again.
        self.uses[id.0] += 1;
        let shape = value.shape().to_vec();
        let Values::Float(mut values) = value.into_values() else {
            unreachable!("checked to be floats")
        };
        change(&mut values, shape.last().copied().unwrap_or(1));
        self.tensor(step, shape, Values::Float(values))
    }

    fn check_last_dimension(&self, step: &Step) -> Result<(), Stop> {
        let shape = self.value(step.inputs[0]).shape();
        match shape.last() {
            None | Some(0) => {
                Err(self.fail(step, format!("nothing to compare in {}", shape_text(shape))))
            }
            Some(_) if shape.len() == 1 && self.mode == Mode::Rows => Err(Stop::MixesRows),
            Some(_) => Ok(()),
        }
    }

    fn reshape(&mut self, step: &Step) -> Result<Tensor, Stop> {
        let given = self.value(step.inputs[0]).shape().to_vec();
        let wanted: Vec<i64> = match self.value(step.inputs[1]).values() {
            Values::Int32(sizes) => sizes.iter().map(|&size| i64::from(size)).collect(),
            Values::Int64(sizes) => sizes.clone(),
            _ => return Err(self.fail(step, "the shape is not of integers")),
        };
        let shape = fill_shape(&given, &wanted)
            .ok_or_else(|| self.fail(step, format!("{} as {wanted:?}", shape_text(&given))))?;
        if self.mode == Mode::Rows
            && (given.first() != shape.first() || wanted.first().is_some_and(|&size| size >= 0))
        {
            return Err(Stop::MixesRows);
        }
        let id = step.inputs[0];
        let value = self.take(id);
        self.uses[id.0] += 1;
        value
            .reshaped(shape)
            .map_err(|error| self.fail(step, error.to_string()))
    }

    fn images(&self, step: &Step) -> Result<(usize, [usize; 3]), Stop> {
        match *self.value(step.inputs[0]).shape() {
            [rows, height, width, channels] => Ok((rows, [height, width, channels])),
            ref other => Err(self.fail(
                step,
                format!(
                    "{} is not [images, rows, columns, channels]",
                    shape_text(other)
                ),
            )),
        }
    }

    fn convolve(
        &mut self,
        step: &Step,
        strides: [usize; 2],
        padding: Padding,
    ) -> Result<Tensor, Stop> {
        let (rows, image) = self.images(step)?;
        if self.mode == Mode::Rows && !self.is_constant(step.inputs[1]) {
            return Err(Stop::MixesRows);
        }
        let kernel_shape = self.value(step.inputs[1]).shape();
        let conv = <[usize; 4]>::try_from(kernel_shape)
            .ok()
            .and_then(|kernel| Conv2d::new(image, kernel, strides, padding))
            .ok_or_else(|| {
                let [h, w, c] = image;
                let kernel = shape_text(kernel_shape);
                self.fail(
                    step,
                    format!("kernel {kernel} does not fit images [{h},{w},{c}]"),
                )
            })?;
        let [_, width, filters] = conv.output();
        let pool = match step.tail.pool {
            Some(PoolSpec {
                window,
                strides,
                padding,
            }) => Some(
                MaxPool::new(conv.output(), window, strides, padding)
                    .ok_or_else(|| self.fail(step, "the pooling behind it does not fit"))?,
            ),
            None => None,
        };
        let output = pool.map_or_else(|| conv.output(), |pool| pool.output());
        let output_len: usize = output.iter().product();

        let mut results = self.workspace.take(rows * output_len);
        let mut raw = self
            .workspace
            .take(if pool.is_some() { conv.output_len() } else { 0 });
        let mut scratch = std::mem::take(&mut self.workspace.conv);
        let mut tiles = std::mem::take(&mut self.workspace.winograd);
        let winograd = Winograd::new(&conv).zip(self.plan.transformed.get(&step.node));
        let images = self.floats(step, 0)?;
        let kernel = self.floats(step, 1)?;
        let bias = self.bias(step, filters)?;
        for (image, result) in images
            .chunks_exact(conv.input_len())
            .zip(results.chunks_exact_mut(output_len))
        {
            let target = if pool.is_some() {
                &mut raw[..]
            } else {
                &mut *result
            };
            match winograd {
                Some((winograd, kernel)) => winograd.forward(image, kernel, target, &mut tiles),
                None => conv.forward(image, kernel, target, &mut scratch),
            }
            match (bias, pool) {
                (None, _) => {}
                (Some(bias), Some(pool)) if pool.is_halving() => {
                    kernels::max_pool_bias_relu(&raw, width, bias, result);
                }
                (Some(bias), Some(pool)) => {
                    kernels::add_bias_relu(&mut raw, bias);
                    pool.forward(&raw, result);
                }
                (Some(bias), None) if step.tail.relu => kernels::add_bias_relu(result, bias),
                (Some(bias), None) => kernels::add_bias(result, bias),
            }
        }
        self.workspace.conv = scratch;
        self.workspace.winograd = tiles;
        self.workspace.give(raw);
        let shape = std::iter::once(rows).chain(output).collect();
        self.tensor(step, shape, Values::Float(results))
    }

    fn pool(&mut self, step: &Step, spec: PoolSpec) -> Result<Tensor, Stop> {
        let (rows, image) = self.images(step)?;
        let pool = MaxPool::new(image, spec.window, spec.strides, spec.padding)
            .ok_or_else(|| self.fail(step, "the window does not fit the images"))?;
        let [height, width, channels] = pool.output();
        let (input_len, output_len) = (image.iter().product::<usize>(), height * width * channels);
        let mut results = self.workspace.take(rows * output_len);
        if input_len > 0 {
            let images = self.floats(step, 0)?.chunks_exact(input_len);
            for (image, result) in images.zip(results.chunks_exact_mut(output_len)) {
                pool.forward(image, result);
            }
        }
        self.tensor(
            step,
            vec![rows, height, width, channels],
            Values::Float(results),
        )
    }

    fn multiply(&mut self, step: &Step, turn_a: bool, turn_b: bool) -> Result<Tensor, Stop> {
        let shape = |input: usize| self.value(step.inputs[input]).shape();
        let (&[a0, a1], &[b0, b1]) = (shape(0), shape(1)) else {
            let (a, b) = (shape_text(shape(0)), shape_text(shape(1)));
            return Err(self.fail(step, format!("{a} times {b} are not two matrices")));
        };
        let (rows, depth) = if turn_a { (a1, a0) } else { (a0, a1) };
        let (depth_b, columns) = if turn_b { (b1, b0) } else { (b0, b1) };
        if depth != depth_b {
            return Err(self.fail(
                step,
                format!("[{rows},{depth}] times [{depth_b},{columns}]"),
            ));
        }
        if self.mode == Mode::Rows && (turn_a || !self.is_constant(step.inputs[1])) {
            return Err(Stop::MixesRows);
        }
        let mut results = self.workspace.take(rows * columns);
        let (a, b) = (self.floats(step, 0)?, self.floats(step, 1)?);
        let bias = self.bias(step, columns)?;
        if depth == 0 {
            results.fill(0.0);
        } else if turn_a || turn_b {
            let mut left = Matrix::new(a, a0, a1);
            let mut right = Matrix::new(b, b0, b1);
            if turn_a {
                left = left.transposed();
            }
            if turn_b {
                right = right.transposed();
            }
            kernels::matmul(
                MatrixMut::new(&mut results, rows, columns),
                0.0,
                left,
                right,
                1.0,
            );
        } else {
            kernels::dense(a, b, None, &mut results, columns);
        }
        match bias {
            Some(bias) if step.tail.relu => kernels::add_bias_relu(&mut results, bias),
            Some(bias) => kernels::add_bias(&mut results, bias),
            None => {}
        }
        self.tensor(step, vec![rows, columns], Values::Float(results))
    }

    fn add(&mut self, step: &Step) -> Result<Tensor, Stop> {
        let shape = |input: usize| self.value(step.inputs[input]).shape();
        // The larger input is changed, the smaller one repeated.
        let (large, small) = if shape(0).len() < shape(1).len() {
            (1, 0)
        } else {
            (0, 1)
        };
        let (large_shape, small_shape) = (shape(large).to_vec(), shape(small).to_vec());
        if !large_shape.ends_with(&small_shape) {
            let (a, b) = (shape_text(shape(0)), shape_text(shape(1)));
            return Err(self.fail(step, format!("{a} plus {b}")));
        }
        let same = large_shape.len() == small_shape.len();
        if self.mode == Mode::Rows && same == self.is_constant(step.inputs[small]) {
            return Err(Stop::MixesRows);
        }
        let more = self.floats(step, small)?;
        let mut sums = self.floats(step, large)?.to_vec();
        if !more.is_empty() {
            kernels::add_bias(&mut sums, more);
        }
        self.tensor(step, large_shape, Values::Float(sums))
    }

    fn arg_max(&mut self, step: &Step, output: DataType) -> Result<Tensor, Stop> {
        self.check_last_dimension(step)?;
        let shape = self.value(step.inputs[0]).shape();
        let last = shape.len() as i64 - 1;
        let axis = match self.value(step.inputs[1]).values() {
            Values::Int32(axis) if axis.len() == 1 => i64::from(axis[0]),
            Values::Int64(axis) if axis.len() == 1 => axis[0],
            _ => return Err(self.fail(step, "the dimension is not one integer")),
        };
        if axis != last && axis != -1 {
            return Err(self.fail(step, format!("dimension {axis} of {}", shape_text(shape))));
        }
        let columns = shape[shape.len() - 1];
        let positions = self
            .floats(step, 0)?
            .chunks_exact(columns)
            .map(kernels::arg_max);
        let values = match output {
            DataType::Int32 => Values::Int32(positions.map(|p| p as i32).collect()),
            _ => Values::Int64(positions.map(|p| p as i64).collect()),
        };
        self.tensor(step, shape[..shape.len() - 1].to_vec(), values)
    }
}

/// The shape with its -1 replaced by what is left.
fn fill_shape(given: &[usize], wanted: &[i64]) -> Option<Vec<usize>> {
    let elements: usize = given.iter().product();
    let known = wanted.iter().filter(|&&size| size != -1);
    let product: i64 = known.clone().try_fold(1_i64, |product, &size| {
        if size < 0 {
            None
        } else {
            product.checked_mul(size)
        }
    })?;
    let product = usize::try_from(product).ok()?;
    let rest = match wanted.len() - known.count() {
        0 if product == elements => 0,
        1 if product > 0 && elements.is_multiple_of(product) => elements / product,
        _ => return None,
    };
    wanted
        .iter()
        .map(|&size| {
            if size == -1 {
                Some(rest)
            } else {
                usize::try_from(size).ok()
            }
        })
        .collect()
}

fn cast(tensor: &Tensor, to: DataType) -> Tensor {
    fn to_type<T: Copy + Into<f64>>(values: &[T], to: DataType) -> Values {
        let wide = values.iter().map(|&value| value.into());
        match to {
            DataType::Float => Values::Float(wide.map(|v| v as f32).collect()),
            // Integers wrap around, as in TensorFlow.
            DataType::Uint8 => Values::Uint8(wide.map(|v| v as i64 as u8).collect()),
            DataType::Int32 => Values::Int32(wide.map(|v| v as i64 as i32).collect()),
            DataType::Int64 => Values::Int64(wide.map(|v| v as i64).collect()),
        }
    }
    let values = match tensor.values() {
        values if values.data_type() == to => Cow::Borrowed(values),
        Values::Float(values) => Cow::Owned(to_type(values, to)),
        Values::Uint8(values) => Cow::Owned(to_type(values, to)),
        Values::Int32(values) => Cow::Owned(to_type(values, to)),
        Values::Int64(values) => Cow::Owned(match to {
            DataType::Float => Values::Float(values.iter().map(|&v| v as f32).collect()),
            DataType::Uint8 => Values::Uint8(values.iter().map(|&v| v as u8).collect()),
            DataType::Int32 => Values::Int32(values.iter().map(|&v| v as i32).collect()),
            DataType::Int64 => Values::Int64(values.clone()),
        }),
    };
    Tensor::new(tensor.shape().to_vec(), values.into_owned())
        .expect("invariant: a cast keeps the number of elements")
}
