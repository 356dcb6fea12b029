//! The three columns.

use serde::Serialize;

use crate::{
    finding::Finding,
    output::{self, Page},
};

/// One pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// `namespace/name`
    pub(super) pod: String,
    #[serde(rename = "identities")]
    pub(super) rows: Vec<Row>,
    pub(super) findings: Vec<Finding>,
}

/// One identity of one session, or a session without any.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// The container; empty for the pod as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) session: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// The WorkloadIdentity, `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trust_domain: Option<String>,
    pub(super) entitled: Known,
    pub(super) issued: Known,
    pub(super) held: Known,
}

/// An answer and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Known {
    pub(super) answer: Answer,
    pub(super) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    Yes,
    No,
    Unknown,
}

impl Known {
    pub(super) fn yes(why: impl Into<String>) -> Self {
        Self { answer: Answer::Yes, why: why.into() }
    }

    pub(super) fn no(why: impl Into<String>) -> Self {
        Self { answer: Answer::No, why: why.into() }
    }

    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self { answer: Answer::Unknown, why: why.into() }
    }

    fn word(&self) -> String {
        let answer = match self.answer {
            Answer::Yes => "yes",
            Answer::No => "no",
            Answer::Unknown => "unknown",
        };
        answer.to_owned()
    }
}

impl Row {
    pub(super) fn without_id(session: &str, entitled: Known, held: Known) -> Self {
        Self {
            session: session.to_owned(),
            id: None,
            identity: None,
            trust_domain: None,
            issued: match entitled.answer {
                Answer::No => Known::no("nothing is issued to it now"),
                Answer::Yes | Answer::Unknown => Known::unknown("it is not known what it is entitled to"),
            },
            entitled,
            held,
        }
    }

    /// Whether two of the three are known and differ; credentials that may outlive an entitlement are a difference too.
    fn differs(&self) -> bool {
        match self.entitled.answer {
            Answer::Yes => self.issued.answer == Answer::No || self.held.answer == Answer::No,
            Answer::No => self.held.answer != Answer::No,
            Answer::Unknown => false,
        }
    }

    fn name(&self) -> String {
        let id = self.id.as_deref().unwrap_or("none");
        if self.session.is_empty() { id.to_owned() } else { format!("{id} (container {})", self.session) }
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name(), self.entitled.word(), self.issued.word(), self.held.word()]
    }

    fn write(&self, page: &mut Page) {
        page.heading(self.name());
        for (name, known) in [("entitled", &self.entitled), ("issued", &self.issued), ("held", &self.held)] {
            page.fact(name, &known.why);
        }
    }
}

impl Report {
    pub(super) fn keep_differences(&mut self) {
        self.rows.retain(Row::differs);
    }

    pub(super) fn has_differences(&self) -> bool {
        self.rows.iter().any(Row::differs)
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        page.heading(format_args!("pod {}", self.pod));
        if self.rows.is_empty() {
            page.line("No difference is known.");
        } else {
            page.table(&["ID", "ENTITLED", "ISSUED", "HELD"], self.rows.iter().map(Row::cells));
        }
        self.rows.iter().for_each(|row| row.write(page));
        self.findings.iter().for_each(|finding| finding.write(page));
    }
}
