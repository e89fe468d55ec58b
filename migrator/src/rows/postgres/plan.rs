//! What the server says about how it would read a page.

/// The lines of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPlan {
    lines: Vec<String>,
}

impl ScanPlan {
    pub(super) const fn new(lines: Vec<String>) -> Self {
        Self { lines }
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// True where a page costs what it holds: one index gives the rows in order.
    pub fn is_good(&self) -> bool {
        let has = |word: &str| self.lines.iter().any(|line| line.contains(word));
        has("Index") && has("Index Cond") && !has("Sort") && !has("Seq Scan")
    }
}

/// The number of rows that a plan in JSON expects.
pub(super) fn rows_of(plan: &str) -> u64 {
    let parsed: Option<serde_json::Value> = serde_json::from_str(plan).ok();
    let rows = parsed.as_ref().and_then(|plan| plan.get(0)?.get("Plan")?.get("Plan Rows")?.as_u64());
    rows.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_sorts_or_reads_all_is_not_good() {
        let plan = |lines: &[&str]| ScanPlan::new(lines.iter().map(|line| (*line).to_owned()).collect());
        let good = ["Limit", "  ->  Index Scan using i on f", "        Index Cond: (ROW(a, b) > ROW(1, 2))"];
        assert!(plan(&good).is_good());
        assert!(!plan(&["Limit", " -> Sort", " -> Index Scan using i on f", "  Index Cond: (a > 1)"]).is_good());
        assert!(!plan(&["Limit", " -> Seq Scan on f"]).is_good());
    }

    #[test]
    fn the_expected_rows_are_read_from_a_plan() {
        assert_eq!(rows_of("[{\"Plan\": {\"Plan Rows\": 42}}]"), 42);
        assert_eq!(rows_of("nonsense"), 0);
    }
}
