//! Asks a running server for one digit at a time and prints the latency:
//! `serving_bench ADDRESS MODEL COUNT`.

use std::collections::BTreeMap;
use std::error::Error;

use model::Tensor;
use model::codec::Encoding;
use model::mnist::{PIXELS, test_set};
use serving::proto::prediction_service_client::PredictionServiceClient;
use serving::proto::{ModelSpec, PredictRequest};
use stdx::{Clock as _, SystemClock};
use tonic::transport::Channel;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, count] = &args[..] else {
        return Err("usage: serving_bench ADDRESS MODEL COUNT".into());
    };
    let channel = Channel::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let mut client = PredictionServiceClient::new(channel);
    let clock = SystemClock::new();
    let mut times = Vec::new();
    let mut correct = 0;
    let count: usize = count.parse()?;
    for at in 0..count {
        let index = at % test_set().len();
        let mut pixels = vec![0.0; PIXELS];
        test_set().write_floats(index, &mut pixels);
        let x = Tensor::float(vec![1, PIXELS], pixels)?;
        let request = PredictRequest {
            model_spec: Some(ModelSpec {
                name: name.clone(),
                ..ModelSpec::default()
            }),
            inputs: BTreeMap::from([("x".to_owned(), x.to_proto(Encoding::Fields))]),
            output_filter: Vec::new(),
        };
        let began = clock.monotonic();
        let answer = client.predict(request).await?.into_inner();
        times.push(clock.monotonic().saturating_sub(began));
        let class = answer.outputs["classes"].int_val.first().copied();
        correct += usize::from(class == Some(i32::from(test_set().label(index))));
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    #[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
    {
        println!(
            "predict batch 1: p50 {:.0} us, p90 {:.0} us, p99 {:.0} us, min {:.0} us, {:.2} % right of {count}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.0),
            100.0 * correct as f64 / count as f64
        );
    }
    Ok(())
}
