//! As much of `protoc` as a build script asks of it: descriptors, by protox.
//!
//!     protoc [--include_imports] [--include_source_info] -o FILE -I FOLDER... FILE...

use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut output, mut includes, mut files) = (None, Vec::new(), Vec::new());
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-o" => output = words.next(),
            "-I" => includes.extend(words.next()),
            _ if word.starts_with("-I") => includes.push(word[2..].to_owned()),
            _ if word.starts_with('-') => {}
            _ => files.push(word),
        }
    }
    let mut compiler = protox::Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    fs::write(output.ok_or("no -o FILE")?, compiler.encode_file_descriptor_set())?;
    Ok(())
}
