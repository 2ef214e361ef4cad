//! Where events go: text on a terminal, JSON otherwise, or a file.
//!
//! What is logged is chosen by, in this order: `--log`, `RUST_LOG`, the
//! configuration. Secrets are kept out at their types: whatever holds one
//! prints nothing of it in `Debug`, and a test over the logs of a real cluster
//! looks for them.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal},
    path::PathBuf,
    sync::Mutex,
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::{LogConfig, LogFormat};

/// Added before every filter: libraries that are loud about what is normal.
const LIBRARIES: &str = "quinn=warn,quinn_proto=warn,rustls=error,ractor=warn,foca=warn,raft=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("`{filter}` is not a log filter ({cause}); write info or info,transport=debug")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The file cannot be opened.
    #[error("cannot log to {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process logs already.
    #[error("the process logs already")]
    Installed,
}

/// Starts logging for this process. `wanted` is what `--log` said.
///
/// # Errors
/// If the filter does not parse, the file does not open, or it was called before.
pub fn install(config: &LogConfig, wanted: Option<&str>) -> Result<(), LogError> {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
    let filter = wanted.or(environment.as_deref()).unwrap_or(&config.filter);
    let filter = EnvFilter::try_new(format!("{LIBRARIES},{filter}")).map_err(|error| {
        LogError::Filter { filter: filter.to_owned(), cause: error.to_string() }
    })?;
    tracing_subscriber::registry()
        .with(output(config)?.with_filter(filter))
        .try_init()
        .map_err(|_| LogError::Installed)
}

type Output = Box<dyn Layer<Registry> + Send + Sync>;

fn output(config: &LogConfig) -> Result<Output, LogError> {
    let Some(path) = &config.file else {
        let terminal = io::stderr().is_terminal();
        return Ok(layer(config.format, terminal, io::stderr));
    };
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| LogError::File { path: path.clone(), source })?;
    // Lock: lines of several threads must not mix in the file.
    Ok(layer(config.format, false, Mutex::new(file)))
}

fn layer<W>(format: LogFormat, terminal: bool, writer: W) -> Output
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(terminal);
    let text = match format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    if text {
        base.boxed()
    } else {
        base.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(filter: &str, file: PathBuf) -> LogConfig {
        LogConfig { filter: filter.to_owned(), format: LogFormat::Auto, file: Some(file) }
    }

    #[test]
    fn a_file_gets_one_json_object_per_line_with_fields_and_span() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.log");
        let layer = output(&config("info", path.clone())).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("replica", shard = 7).entered();
            tracing::info!(term = 3, "leader elected");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "leader elected");
        assert_eq!(line["term"], 3);
        assert_eq!(line["span"]["shard"], 7);
    }

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = config("info", folder.path().join("n1.log"));
        let error = install(&config, Some("a=b=c")).unwrap_err();
        assert!(error.to_string().starts_with("`a=b=c` is not a log filter"), "{error}");
    }

    #[test]
    fn a_log_file_in_a_missing_folder_is_named() {
        let error = install(&config("info", "nowhere/n1.log".into()), None).unwrap_err();
        assert!(error.to_string().contains("cannot log to nowhere/n1.log"), "{error}");
    }
}
