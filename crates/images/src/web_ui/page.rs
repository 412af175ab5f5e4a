//! The page as HTML: everything the original showed works without a script.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Shown, Target};

const PAGE: &str = include_str!("assets/play.html");
const SIDE: u32 = 28;

/// Renders the page; fails only if the image cannot be encoded.
pub(super) fn render(target: &Target, shown: &Shown) -> Result<String, String> {
    let image = png(&shown.pixels)?;
    let (class, status) = match &shown.answer {
        Ok(p) => ("ok", format!("Connected (model version: {})", p.version)),
        Err(error) => ("bad", format!("Exception making request: {error}")),
    };
    let prediction = match &shown.answer {
        Ok(p) => p.class.to_string(),
        Err(_) => "–".to_owned(),
    };
    let latency = match &shown.answer {
        Ok(p) => format!("{:.1} ms", p.latency.as_secs_f64() * 1000.0),
        Err(_) => "–".to_owned(),
    };
    let probabilities = shown
        .answer
        .as_ref()
        .map(|p| p.probabilities.as_slice())
        .unwrap_or(&[]);
    Ok(PAGE
        .replace("{{name}}", &escaped(&target.name))
        .replace("{{addr}}", &escaped(&target.addr))
        .replace("{{port}}", &escaped(&target.port))
        .replace("{{class}}", class)
        .replace("{{status}}", &escaped(&status))
        .replace("{{image}}", &image)
        .replace("{{truth}}", &shown.truth.to_string())
        .replace("{{prediction}}", &prediction)
        .replace("{{latency}}", &latency)
        .replace("{{bars}}", &bars(probabilities)))
}

/// A row per digit; `meter` draws itself and reads itself out.
fn bars(probabilities: &[f32]) -> String {
    (0..10)
        .map(|digit| {
            let p = probabilities.get(digit).copied().unwrap_or(0.0);
            let best = !probabilities.is_empty() && probabilities.iter().all(|other| *other <= p);
            format!(
                "<li{}><b>{digit}</b><meter min=\"0\" max=\"1\" value=\"{p:.4}\"></meter>\
                 <span>{:.1}%</span></li>",
                if best { " class=\"best\"" } else { "" },
                p * 100.0
            )
        })
        .collect()
}

/// The image as a data URI, dark ink on white.
fn png(pixels: &[u8]) -> Result<String, String> {
    let ink: Vec<u8> = pixels.iter().map(|value| 255 - value).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE, SIDE);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&ink))
        .map_err(|e| format!("encode the image: {e}"))?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

/// For HTML; braces too, which would look like places to fill in.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '{' => safe.push_str("&#123;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web_ui::client::Prediction;

    fn shown(answer: Result<Prediction, String>) -> Shown {
        Shown {
            index: 0,
            truth: 7,
            pixels: vec![0; 784],
            answer,
        }
    }

    #[test]
    fn the_page_names_version_truth_and_prediction() {
        let mut probabilities = vec![0.01; 10];
        probabilities[7] = 0.91;
        let answer = Prediction {
            version: 1_700_000_000,
            class: 7,
            probabilities,
            latency: std::time::Duration::from_micros(1500),
        };
        let html = render(&Target::default(), &shown(Ok(answer))).unwrap();
        assert!(html.contains("Connected (model version: 1700000000)"));
        assert!(html.contains("91.0%") && html.contains("1.5 ms") && !html.contains("{{"));
    }

    #[test]
    fn a_failure_is_shown_and_cannot_inject_markup() {
        let target = Target {
            addr: "\"><script>".to_owned(),
            ..Target::default()
        };
        let html = render(&target, &shown(Err("no <such> host".to_owned()))).unwrap();
        assert!(html.contains("Exception making request: no &lt;such&gt; host"));
        assert!(!html.contains("\"><script>"));
        let target = Target {
            name: "{{bars}}".to_owned(),
            ..Target::default()
        };
        let html = render(&target, &shown(Err(String::new()))).unwrap();
        assert!(html.contains("value=\"&#123;&#123;bars}}\""));
    }
}
