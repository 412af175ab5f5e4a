//! As much HTTP as asking a local server takes: one request a connection, no TLS.

use std::fmt::Write as _;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

const PATIENCE: Duration = Duration::from_secs(30);

/// `GET url`.
pub(crate) fn get(url: &str) -> Result<String> {
    request("GET", url, "", b"")
}

/// `POST url` with JSON in the body.
pub(crate) fn post_json(url: &str, body: &serde_json::Value) -> Result<String> {
    request("POST", url, "application/json", body.to_string().as_bytes())
}

/// `POST url` with a file as form field `uploadfile`.
pub(crate) fn upload(url: &str, name: &str, content: &[u8]) -> Result<String> {
    const BOUNDARY: &str = "coracle-xtask-boundary-7MA4YWxk";
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"uploadfile\"; \
         filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    request(
        "POST",
        url,
        &format!("multipart/form-data; boundary={BOUNDARY}"),
        &body,
    )
}

/// Sends a request; any answer but 2xx is an error with its body.
fn request(method: &str, url: &str, content_type: &str, body: &[u8]) -> Result<String> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url} is not http://"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let address = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let attempt = || format!("{method} {url}");
    let mut stream = TcpStream::connect(&address).with_context(attempt)?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .with_context(attempt)?;
    let mut message = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: */*\r\n\
         Content-Length: {}\r\n",
        body.len()
    );
    if !content_type.is_empty() {
        write!(message, "Content-Type: {content_type}\r\n")
            .context("invariant: a string takes text")?;
    }
    message.push_str("\r\n");
    let mut message = message.into_bytes();
    message.extend_from_slice(body);
    stream.write_all(&message).with_context(attempt)?;
    let (status, text) = answer(BufReader::new(stream)).with_context(attempt)?;
    ensure!(
        (200..300).contains(&status),
        "{method} {url}: {status} {text}"
    );
    Ok(text)
}

fn answer(mut reader: impl std::io::BufRead) -> Result<(u16, String)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = status.with_context(|| format!("not an HTTP answer: {line:?}"))?;
    let (mut chunked, mut length) = (false, None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            bail!("the connection ended in the answer's head");
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            "content-length" => length = value.trim().parse().ok(),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).context("the size of a chunk")?;
            reader.by_ref().take(size).read_to_end(&mut body)?;
            let mut end = String::new();
            reader.read_line(&mut end)?;
            if size == 0 {
                break;
            }
        }
    } else {
        reader
            .take(length.unwrap_or(u64::MAX))
            .read_to_end(&mut body)?;
    }
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_in_both_framings() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi, and more";
        assert_eq!(answer(plain.as_bytes()).unwrap(), (200, "hi".to_owned()));
        let chunked =
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
        assert_eq!(answer(chunked.as_bytes()).unwrap(), (404, "no".to_owned()));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in ["", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(answer(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
