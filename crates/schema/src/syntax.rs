//! What Go's `encoding/json` says of a document that is not JSON. Runs on the failure path only;
//! the parser that reads documents is `serde_json`.

/// The error Go reports for `bytes`, or `None` where Go finds none.
pub(crate) fn check(bytes: &[u8]) -> Option<String> {
    let mut scanner = Scanner { bytes, at: 0 };
    match scanner.document() {
        Ok(()) => None,
        Err(Fault::End) => Some("unexpected end of JSON input".to_owned()),
        Err(Fault::Bad(place)) => {
            let character = scanner.quoted();
            Some(format!("invalid character {character} {place}"))
        }
    }
}

enum Fault {
    End,
    Bad(&'static str),
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

const VALUE: &str = "looking for beginning of value";

impl Scanner<'_> {
    fn peek(&self) -> Result<u8, Fault> {
        self.bytes.get(self.at).copied().ok_or(Fault::End)
    }

    /// The offending byte as Go quotes it.
    fn quoted(&self) -> String {
        match self.bytes.get(self.at) {
            Some(b'\'') => r"'\''".to_owned(),
            Some(b'"') => "'\"'".to_owned(),
            Some(b'\\') => r"'\\'".to_owned(),
            Some(b'\n') => r"'\n'".to_owned(),
            Some(b'\r') => r"'\r'".to_owned(),
            Some(b'\t') => r"'\t'".to_owned(),
            Some(&byte) if byte < 0x20 || byte == 0x7f => format!("'\\x{byte:02x}'"),
            Some(&byte) => format!("'{}'", char::from(byte)),
            None => String::new(),
        }
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn document(&mut self) -> Result<(), Fault> {
        self.space();
        self.value(0)?;
        self.space();
        match self.peek() {
            Ok(_) => Err(Fault::Bad("after top-level value")),
            Err(_) => Ok(()),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        // Go gives up at 10,000 levels; the stack here need not hold as many.
        if depth > 500 {
            return Ok(());
        }
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b't' => self.literal(
                "true",
                &[
                    "in literal true (expecting 'r')",
                    "in literal true (expecting 'u')",
                    "in literal true (expecting 'e')",
                ],
            ),
            b'f' => self.literal(
                "false",
                &[
                    "in literal false (expecting 'a')",
                    "in literal false (expecting 'l')",
                    "in literal false (expecting 's')",
                    "in literal false (expecting 'e')",
                ],
            ),
            b'n' => self.literal(
                "null",
                &[
                    "in literal null (expecting 'u')",
                    "in literal null (expecting 'l')",
                    "in literal null (expecting 'l')",
                ],
            ),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Fault::Bad(VALUE)),
        }
    }

    fn literal(&mut self, word: &str, places: &[&'static str]) -> Result<(), Fault> {
        self.at += 1;
        for (expected, place) in word.bytes().skip(1).zip(places) {
            if self.peek()? != expected {
                return Err(Fault::Bad(place));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return Err(Fault::Bad("in numeric literal")),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.peek()?.is_ascii_digit() {
                return Err(Fault::Bad("after decimal point in numeric literal"));
            }
            self.digits();
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            if !self.peek()?.is_ascii_digit() {
                return Err(Fault::Bad("in exponent of numeric literal"));
            }
            self.digits();
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.at += 1,
                        b'u' => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek()?.is_ascii_hexdigit() {
                                    return Err(Fault::Bad("in \\u hexadecimal character escape"));
                                }
                                self.at += 1;
                            }
                        }
                        _ => return Err(Fault::Bad("in string escape code")),
                    }
                }
                0..0x20 => return Err(Fault::Bad("in string literal")),
                _ => self.at += 1,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        self.at += 1;
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek()? != b'"' {
                return Err(Fault::Bad("looking for beginning of object key string"));
            }
            self.string()?;
            self.space();
            if self.peek()? != b':' {
                return Err(Fault::Bad("after object key"));
            }
            self.at += 1;
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Fault::Bad("after object key:value pair")),
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        self.at += 1;
        self.space();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Fault::Bad("after array element")),
            }
            self.space();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn errors_read_as_go_words_them() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            (
                "garbage",
                "invalid character 'g' looking for beginning of value",
            ),
            (
                "{not json",
                "invalid character 'n' looking for beginning of object key string",
            ),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":1 \"b\":2}",
                "invalid character '\"' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            (
                "nul!",
                "invalid character '!' in literal null (expecting 'l')",
            ),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            ("-x", "invalid character 'x' in numeric literal"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
        ];
        for (text, want) in cases {
            assert_eq!(check(text.as_bytes()).as_deref(), Some(want), "{text}");
        }
        assert_eq!(check(b" {\"a\": [1, 2.5e3, true, null]} "), None);
    }
}
