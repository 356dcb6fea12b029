//! Reads an operator's HTTP port: readiness and metrics.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The HTTP port of an operator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpPort(pub(crate) SocketAddr);

impl HttpPort {
    /// The status and body of a request.
    pub(crate) async fn get(self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.0).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        Ok((status.context("no status")?, body.unwrap_or_default()))
    }

    /// The metrics now.
    pub(crate) async fn metrics(self) -> Result<Metrics> {
        let (_, text) = self.get("/metrics").await.context("reading the operator's metrics")?;
        Ok(Metrics(text))
    }
}

/// The metrics at one time, as OpenMetrics text.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The value of a metric. `name` includes its labels, as the text has them.
    pub(crate) fn value(&self, name: &str) -> Result<f64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        value.with_context(|| format!("the operator has no metric {name}"))
    }

    /// The sum of a metric over all its labels; 0 while there is none.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let labelled = self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
        labelled.filter_map(|(_, value)| value.trim().parse::<f64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    fn metrics() -> Metrics {
        let lines = [
            "sessions 3",
            "sessions_displaced_total 9",
            "issued_total{kind=\"X509\"} 5",
            "issued_total{kind=\"Jwt\"} 2",
        ];
        Metrics(lines.join("\n"))
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name_and_labels() {
        assert_eq!(metrics().value("sessions").unwrap(), 3.0);
        assert_eq!(metrics().value("issued_total{kind=\"Jwt\"}").unwrap(), 2.0);
        assert!(metrics().value("issued_total").unwrap_err().to_string().contains("issued_total"));
    }

    #[test]
    fn a_sum_is_over_all_labels_of_one_metric() {
        assert_eq!(metrics().sum("issued_total"), 7.0);
        assert_eq!(metrics().sum("issued"), 0.0);
    }
}
