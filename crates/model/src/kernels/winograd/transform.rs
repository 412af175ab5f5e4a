//! The one-dimensional transforms of Winograd's convolution with four outputs and five taps, over
//! the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, and their transposes for the way back.
//!
//! With `B`, `G` and `A` as Lavin and Gray write them: `outputs = A' [(G taps) * (B' inputs)]`.
//! Each transform works on vectors: as many channels or filters at once as the machine has lanes.

use pulp::Simd;

/// Inputs of a tile along one side, and points of the transform.
pub(super) const POINTS: usize = 8;
/// Outputs of a tile along one side.
pub(super) const OUTPUTS: usize = 4;
/// Taps of a kernel along one side.
pub(super) const TAPS: usize = 5;

/// Arithmetic on vectors, short to write.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S: Simd>(pub(super) S);

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn add(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.add_f32s(a, b)
    }

    #[inline(always)]
    fn sub(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.sub_f32s(a, b)
    }

    #[inline(always)]
    fn mul(self, factor: f32, a: S::f32s) -> S::f32s {
        self.0.mul_f32s(self.0.splat_f32s(factor), a)
    }

    /// `factor * a + b`.
    #[inline(always)]
    fn mad(self, factor: f32, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.mul_add_e_f32s(self.0.splat_f32s(factor), a, b)
    }

    /// Sum and difference.
    #[inline(always)]
    fn both(self, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
        [self.add(a, b), self.sub(a, b)]
    }

    /// Sum and difference, multiplied.
    #[inline(always)]
    fn pair(self, factor: f32, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
        let [sum, difference] = self.both(a, b);
        [self.mul(factor, sum), self.mul(factor, difference)]
    }

    /// `B' d`.
    #[inline(always)]
    pub(super) fn input(self, d: [S::f32s; 8]) -> [S::f32s; 8] {
        let l = self;
        let first = l.mad(5.25, l.sub(d[4], d[2]), l.sub(d[0], d[6]));
        let last = l.mad(5.25, l.sub(d[3], d[5]), l.sub(d[7], d[1]));
        let even = l.mad(-4.25, d[4], l.add(d[2], d[6]));
        let odd = l.mad(-4.25, d[3], l.add(d[1], d[5]));
        let [one, minus_one] = l.both(even, odd);
        let even = l.mad(-1.25, d[4], l.mad(0.25, d[2], d[6]));
        let odd = l.mad(2.0, d[5], l.mad(-2.5, d[3], l.mul(0.5, d[1])));
        let [two, minus_two] = l.both(even, odd);
        let even = l.mad(-5.0, d[4], l.mad(4.0, d[2], d[6]));
        let odd = l.mad(0.5, d[5], l.mad(-2.5, d[3], l.mul(2.0, d[1])));
        let [half, minus_half] = l.both(even, odd);
        [
            first, one, minus_one, two, minus_two, half, minus_half, last,
        ]
    }

    /// `B v`.
    #[inline(always)]
    pub(super) fn input_back(self, v: [S::f32s; 8]) -> [S::f32s; 8] {
        let l = self;
        let [s1, m1] = l.both(v[1], v[2]);
        let [s2, m2] = l.both(v[3], v[4]);
        let [s3, m3] = l.both(v[5], v[6]);
        let d1 = l.sub(l.mad(2.0, m3, l.mad(0.5, m2, m1)), v[7]);
        let d2 = l.mad(4.0, s3, l.mad(0.25, s2, l.mad(-5.25, v[0], s1)));
        let d3 = l.mad(-4.25, m1, l.mad(-2.5, l.add(m2, m3), l.mul(5.25, v[7])));
        let d4 = l.mad(
            -5.0,
            s3,
            l.mad(-1.25, s2, l.mad(-4.25, s1, l.mul(5.25, v[0]))),
        );
        let d5 = l.mad(-5.25, v[7], l.mad(0.5, m3, l.mad(2.0, m2, m1)));
        let d6 = l.sub(l.add(s1, l.add(s2, s3)), v[0]);
        [v[0], d1, d2, d3, d4, d5, d6, v[7]]
    }

    /// `A' m`.
    #[inline(always)]
    pub(super) fn output(self, m: [S::f32s; 8]) -> [S::f32s; 4] {
        let l = self;
        let [s1, m1] = l.both(m[1], m[2]);
        let [s2, m2] = l.both(m[3], m[4]);
        let [s3, m3] = l.both(m[5], m[6]);
        [
            l.add(l.add(m[0], s1), l.add(s2, s3)),
            l.mad(0.5, m3, l.mad(2.0, m2, m1)),
            l.mad(0.25, s3, l.mad(4.0, s2, s1)),
            l.mad(0.125, m3, l.mad(8.0, m2, l.add(m1, m[7]))),
        ]
    }

    /// `A y`.
    #[inline(always)]
    pub(super) fn output_back(self, y: [S::f32s; 4]) -> [S::f32s; 8] {
        let l = self;
        let [o1, o2] = l.both(l.add(y[0], y[2]), l.add(y[1], y[3]));
        let [o3, o4] = l.both(l.mad(4.0, y[2], y[0]), l.mad(8.0, y[3], l.mul(2.0, y[1])));
        let [o5, o6] = l.both(
            l.mad(0.25, y[2], y[0]),
            l.mad(0.125, y[3], l.mul(0.5, y[1])),
        );
        [y[0], o1, o2, o3, o4, o5, o6, y[3]]
    }

    /// `G w`.
    #[inline(always)]
    pub(super) fn kernel(self, w: [S::f32s; 5]) -> [S::f32s; 8] {
        let l = self;
        let [g1, g2] = l.pair(
            -2.0 / 9.0,
            l.add(l.add(w[0], w[4]), w[2]),
            l.add(w[1], w[3]),
        );
        let [g3, g4] = l.pair(
            1.0 / 90.0,
            l.mad(16.0, w[4], l.mad(4.0, w[2], w[0])),
            l.mad(8.0, w[3], l.mul(2.0, w[1])),
        );
        let [g5, g6] = l.pair(
            32.0 / 45.0,
            l.mad(0.0625, w[4], l.mad(0.25, w[2], w[0])),
            l.mad(0.125, w[3], l.mul(0.5, w[1])),
        );
        [w[0], g1, g2, g3, g4, g5, g6, w[4]]
    }

    /// `G' u`.
    #[inline(always)]
    pub(super) fn kernel_back(self, u: [S::f32s; 8]) -> [S::f32s; 5] {
        let l = self;
        let [s1, m1] = l.pair(-2.0 / 9.0, u[1], u[2]);
        let [s2, m2] = l.pair(1.0 / 90.0, u[3], u[4]);
        let [s3, m3] = l.pair(32.0 / 45.0, u[5], u[6]);
        [
            l.add(l.add(u[0], s1), l.add(s2, s3)),
            l.mad(0.5, m3, l.mad(2.0, m2, m1)),
            l.mad(0.25, s3, l.mad(4.0, s2, s1)),
            l.mad(0.125, m3, l.mad(8.0, m2, m1)),
            l.add(l.mad(0.0625, s3, l.mad(16.0, s2, s1)), u[7]),
        ]
    }

    /// A transform of rows and columns: `along` each column of `from`, then along each row of that.
    /// `from(row, column)` reads, `to(row, column, value)` writes.
    #[inline(always)]
    pub(super) fn square<const I: usize, const O: usize>(
        self,
        mut from: impl FnMut(usize, usize) -> S::f32s,
        along: impl Fn(Self, [S::f32s; I]) -> [S::f32s; O],
        mut to: impl FnMut(usize, usize, S::f32s),
    ) {
        // Plain counting: iterators are not always inlined into code for other instructions.
        let zero = self.0.splat_f32s(0.0);
        let mut columns = [[zero; O]; I];
        let mut x = 0;
        while x < I {
            let mut values = [zero; I];
            let mut y = 0;
            while y < I {
                values[y] = from(y, x);
                y += 1;
            }
            columns[x] = along(self, values);
            x += 1;
        }
        let mut y = 0;
        while y < O {
            let mut values = [zero; I];
            let mut x = 0;
            while x < I {
                values[x] = columns[x][y];
                x += 1;
            }
            let values = along(self, values);
            let mut x = 0;
            while x < O {
                to(y, x, values[x]);
                x += 1;
            }
            y += 1;
        }
    }
}
