//! Times an exported model without a server: `model_bench MODEL_DIR COUNT BATCH`.

use std::error::Error;
use std::path::Path;

use model::mnist::{PIXELS, test_set};
use model::signature::DEFAULT_SIGNATURE;
use model::{SavedModel, Tensor};

#[expect(
    clippy::disallowed_methods,
    reason = "a measuring tool without a clock to hand in"
)]
#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, count, batch] = &args[..] else {
        return Err("usage: model_bench MODEL_DIR COUNT BATCH".into());
    };
    let (count, batch) = (count.parse::<usize>()?, batch.parse::<usize>()?);
    let model = SavedModel::read(Path::new(dir))?;
    let mut times = Vec::new();
    for at in 0..count {
        let mut pixels = vec![0.0; batch * PIXELS];
        for (row, image) in pixels.chunks_exact_mut(PIXELS).enumerate() {
            test_set().write_floats((at * batch + row) % test_set().len(), image);
        }
        let x = Tensor::float(vec![batch, PIXELS], pixels)?;
        let began = std::time::Instant::now();
        model.predict(DEFAULT_SIGNATURE, [("x".to_owned(), x)].into(), &[])?;
        times.push(began.elapsed());
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "batch {batch}: p50 {:.0} us, p99 {:.0} us, min {:.0} us",
        at(0.5),
        at(0.99),
        at(0.0)
    );
    Ok(())
}
